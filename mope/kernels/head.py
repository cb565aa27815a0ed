"""Pooled quantile head: pooling, features, served model, two layers and rising quantiles, in one launch.

The last norm of the encoder is applied while pooling. The hidden units of a row are shared among PARTS blocks, each
of which pools for itself: at batch 1 one multiprocessor would need 10 us for the weights that eight read in two.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mope.kernels import launch
from mope.kernels.operands import EPS, HeadRows, HeadWeights, Moments
from mope.kernels.parts import erf_gelu, row_norm

PARTS = 8  # blocks a row
UNITS = 8  # hidden units at a time: 8 x 1024 weights are 32 registers a thread
TOKENS = 8  # tokens at a time while pooling, for the same reason
WARPS = 8


@triton.jit
def head_kernel(
    x,  # [T, H]
    norm,  # [T, P, 2]
    cu,  # [S + 1]
    gamma,  # [E, H]
    beta,  # [E, H]
    sequence_of,  # [R], -1 is padding
    expert_of,  # [R]
    source_of,  # [R]
    features,  # [B, F]
    model_of,  # [B]
    level_mean,  # [E, F]
    level_scale,  # [E, F]
    facts1,  # [E, D, 2F]
    b_facts1,  # [E, D]
    facts2,  # [E, D, D]
    b_facts2,  # [E, D]
    models,  # [E, M, C]
    mix,  # [E, W, 2H + D + C]
    b_mix,  # [E, W]
    out_w,  # [E, Q, W]
    b_out,  # [E, Q]
    rising,  # [E]
    partial,  # [R, PARTS, Q_UP]
    arrived,  # [R], zero before and after
    out,  # [R, Q]
    WIDTH: tl.constexpr,
    WIDTH_UP: tl.constexpr,
    NORM_TILE: tl.constexpr,
    FEATURES: tl.constexpr,
    FEATURES_UP: tl.constexpr,
    FACTS: tl.constexpr,
    MODELS: tl.constexpr,
    MODEL_WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    OUTPUTS: tl.constexpr,
    OUTPUTS_UP: tl.constexpr,
    PARTS: tl.constexpr,
    UNITS: tl.constexpr,
    TOKENS: tl.constexpr,
    EPS: tl.constexpr,
):
    """out = q_1, q_1 + softplus(q_2), ... of q = W_o gelu(W_m [mean(t), t_0, facts, model] + b_m) + b_o.

    t are the rows of LayerNorm(x); facts are the standardised features through two layers.
    """
    JOINED: tl.constexpr = 2 * WIDTH + FACTS + MODEL_WIDTH
    SHARE: tl.constexpr = HIDDEN // PARTS
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    sequence = tl.load(sequence_of + row)
    if sequence >= 0:
        e = tl.load(expert_of + row).to(tl.int64)
        source = tl.load(source_of + row).to(tl.int64)
        start = tl.load(cu + sequence)
        end = tl.load(cu + sequence + 1)

        # Mean and first row of LayerNorm(x); gamma and beta come once, after the mean.
        col = tl.arange(0, WIDTH_UP)
        real = col < WIDTH
        mean = tl.zeros((WIDTH_UP,), dtype=tl.float32)
        first = tl.zeros((WIDTH_UP,), dtype=tl.float32)
        for token in range(start, end, TOKENS):
            each = token - start + tl.arange(0, TOKENS)
            inside = each < end - start
            each = tl.minimum(each, end - start - 1)
            middle, scale = row_norm(norm, start.to(tl.int64), each, WIDTH, NORM_TILE, EPS)
            at = x + start.to(tl.int64) * WIDTH + (each[:, None] * WIDTH + col[None, :])
            value = tl.load(at, mask=real[None, :], other=0.0)
            value = (value.to(tl.float32) - middle[:, None]) * scale[:, None]
            mean += tl.sum(tl.where(inside[:, None], value, 0.0), axis=0)
            first += tl.sum(tl.where((each == 0)[:, None] & inside[:, None], value, 0.0), axis=0)
        g = tl.load(gamma + e * WIDTH + col, mask=real, other=0.0)
        b = tl.load(beta + e * WIDTH + col, mask=real, other=0.0)
        mean = mean / (end - start) * g + b
        first = first * g + b

        f = tl.arange(0, FEATURES_UP)
        has = f < FEATURES
        fact = tl.load(features + source * FEATURES + f, mask=has, other=0.0)
        gone = fact != fact
        fact = tl.where(gone, 0.0, fact)
        size = tl.log(1.0 + tl.abs(fact))
        level = tl.where(fact < 0, -size, size) - tl.load(level_mean + e * FEATURES + f, mask=has, other=0.0)
        level = level / tl.load(level_scale + e * FEATURES + f, mask=has, other=1.0)
        level = tl.where(gone, 0.0, tl.minimum(tl.maximum(level, -6.0), 6.0))
        level = tl.where(has, level, 0.0)
        d = tl.arange(0, FACTS)
        at = facts1 + (e * FACTS + d)[:, None] * (2 * FEATURES) + f[None, :]
        sum1 = tl.sum(tl.load(at, mask=has[None, :], other=0.0) * level[None, :], axis=1)
        flags = tl.where(gone, 1.0, 0.0)
        sum1 += tl.sum(tl.load(at + FEATURES, mask=has[None, :], other=0.0) * flags[None, :], axis=1)
        sum1 = erf_gelu(sum1 + tl.load(b_facts1 + e * FACTS + d))
        at = facts2 + (e * FACTS + d)[:, None] * FACTS + d[None, :]
        facts = tl.sum(tl.load(at) * sum1[None, :], axis=1)
        facts = erf_gelu(facts + tl.load(b_facts2 + e * FACTS + d))
        m = tl.arange(0, MODEL_WIDTH)
        model = tl.load(model_of + source).to(tl.int64)
        served = tl.load(models + (e * MODELS + model) * MODEL_WIDTH + m)

        q = tl.arange(0, OUTPUTS_UP)
        asked = q < OUTPUTS
        answer = tl.zeros((OUTPUTS_UP,), dtype=tl.float32)
        for unit in range(0, SHARE, UNITS):
            u = part * SHARE + unit + tl.arange(0, UNITS)
            weight = mix + (e * HIDDEN + u)[:, None] * JOINED
            hidden = tl.load(b_mix + e * HIDDEN + u)
            hidden += tl.sum(
                tl.load(weight + col[None, :], mask=real[None, :], other=0.0) * mean[None, :], axis=1
            )
            weight += WIDTH
            hidden += tl.sum(
                tl.load(weight + col[None, :], mask=real[None, :], other=0.0) * first[None, :], axis=1
            )
            weight += WIDTH
            hidden += tl.sum(tl.load(weight + d[None, :]) * facts[None, :], axis=1)
            weight += FACTS
            hidden += tl.sum(tl.load(weight + m[None, :]) * served[None, :], axis=1)
            hidden = erf_gelu(hidden)
            last = out_w + (e * OUTPUTS + q)[:, None] * HIDDEN + u[None, :]
            answer += tl.sum(tl.load(last, mask=asked[:, None], other=0.0) * hidden[None, :], axis=1)

        slot = partial + row * (PARTS * OUTPUTS_UP) + q
        tl.store(slot + part * OUTPUTS_UP, answer, cache_modifier=".cg")
        tl.debug_barrier()  # as in linear.py: written before counted
        if tl.atomic_add(arrived + row, 1, sem="acq_rel") == PARTS - 1:
            tl.debug_barrier()
            raw = tl.load(b_out + e * OUTPUTS + q, mask=asked, other=0.0)
            for other in range(PARTS):
                raw += tl.load(slot + other * OUTPUTS_UP, cache_modifier=".cg")
            tl.store(arrived + row, 0)
            soft = tl.maximum(raw, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(raw)))
            risen = tl.cumsum(tl.where(q == 0, raw, soft), axis=0)
            raw = tl.where(tl.load(rising + e) != 0, risen, raw)
            tl.store(out + row * OUTPUTS + q, raw, mask=asked)


def head(x: Tensor, norm: Moments, cu: Tensor, rows: HeadRows, weights: HeadWeights) -> Tensor:
    """Outputs FP32 [R, Q] from mean and first token of LayerNorm(x), features and model."""
    count, outputs = len(rows.sequence), weights.out.shape[1]
    width, features = x.shape[1], rows.features.shape[1]
    assert x.is_contiguous()
    assert rows.features.is_contiguous()
    outputs_up = triton.next_power_of_2(outputs)
    out = launch.empty((count, outputs), x, torch.float32)
    partial = launch.empty((count, PARTS, outputs_up), x, torch.float32)
    arrived = launch.counters(x.device)[:count]
    w = weights
    launch.run(
        head_kernel, (count, PARTS),
        x, norm.values, cu, w.affine.gamma, w.affine.beta, rows.sequence, rows.expert, rows.source, rows.features,
        rows.model, w.mean, w.scale, w.facts1, w.b_facts1, w.facts2, w.b_facts2, w.models, w.mix, w.b_mix, w.out,
        w.b_out, w.rising, partial, arrived, out,
        WIDTH=width, WIDTH_UP=triton.next_power_of_2(width), NORM_TILE=norm.tile, FEATURES=features,
        FEATURES_UP=triton.next_power_of_2(features), FACTS=w.facts2.shape[1], MODELS=w.models.shape[1],
        MODEL_WIDTH=w.models.shape[2], HIDDEN=w.mix.shape[1], OUTPUTS=outputs, OUTPUTS_UP=outputs_up,
        PARTS=PARTS, UNITS=UNITS, TOKENS=TOKENS, EPS=EPS, num_warps=WARPS,
    )  # fmt: skip
    return out
