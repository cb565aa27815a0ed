"""What each kernel must compute, in plain PyTorch: the definition of correct.

Letters: T tokens, H width, E experts, S sequences, R rows of the head, P parts of a row. Sums run in FP32 whatever
the type of `x`; results are rounded to it where the kernels round. Tokens past `offsets[-1]` are left as they are
(padding of a bucket): nothing may be read from them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from mope.kernels.operands import Affine, Dense, HeadRows, HeadWeights, Moments, Route, Tables


def moments(x: Tensor, tile: int) -> Moments:
    """Moments of `x` [T, H] in tiles of `tile` columns."""
    parts = [part.float() for part in x.split(tile, dim=1)]
    means = torch.stack([part.mean(1) for part in parts], dim=1)
    squares = torch.stack([((p - p.mean(1, keepdim=True)) ** 2).sum(1) for p in parts], dim=1)
    return Moments(torch.stack([means, squares], dim=-1), tile)


def fold(weight: Tensor, bias: Tensor, norm: Affine | None, dtype: torch.dtype) -> Dense:
    """A `Dense` of weight [E, N, K] and bias [E, N] that reads rows before `norm` is applied to them."""
    if norm is None:
        return Dense(weight.to(dtype).contiguous(), bias.float())
    wide = weight.double()
    folded = (wide * norm.gamma[:, None, :].double()).to(dtype).contiguous()
    shift = torch.einsum("enk,ek->en", wide, norm.beta.double()) + bias.double()
    return Dense(folded, shift.float(), folded.float().sum(-1))


def normalise(x: Tensor, found: Moments, affine: Affine, expert: Tensor) -> Tensor:
    """LayerNorm of `x` [T, H] by its moments and the affine of each row's `expert` [T], FP32."""
    mean, scale = found.whole(x.shape[1])
    return (x.float() - mean) * scale * affine.gamma[expert] + affine.beta[expert]


def expert_of(offsets: Tensor) -> Tensor:
    """The expert of each token that is not padding, int64 [offsets[-1]]."""
    sizes = offsets.diff().long()
    return torch.repeat_interleave(torch.arange(len(sizes), device=offsets.device), sizes)


def linear(
    x: Tensor, dense: Dense, offsets: Tensor, *, norm: Moments | None = None, rows: Tensor | None = None,
    gelu: bool = False, capacity: int = 0,
) -> Tensor:  # fmt: skip
    """x [T, K] through each token's expert: [T, N], or [capacity, N] where `rows` [T'] picks the rows of x."""
    out = x.new_empty(capacity or len(x), dense.weight.shape[1])
    for expert, (first, last) in enumerate(pairwise(offsets.tolist())):
        at = slice(first, last)
        take: Tensor | slice = at if rows is None else rows[at].long()
        total = x[take].float() @ dense.weight[expert].float().T
        if norm is not None:
            assert dense.sums is not None
            mean, scale = norm.whole(x.shape[1])
            total = (total - mean[take] * dense.sums[expert]) * scale[take]
        total = total + dense.bias[expert]
        out[at] = (functional.gelu(total) if gelu else total).to(x.dtype)
    return out


def residual_linear(
    x: Tensor, dense: Dense, offsets: Tensor, residual: Tensor, *, norm: Moments | None = None,
    affine: Affine | None = None, rows: Tensor | None = None,
) -> tuple[Tensor, Moments]:  # fmt: skip
    """x [T, K] through each token's expert, plus the residual's row: [T, N] before its norm, and its moments.

    `norm` and `affine` are the LayerNorm that the residual still lacks; `rows` [T] picks the rows of the residual.
    """
    n = int(offsets[-1])
    expert = expert_of(offsets)
    take: Tensor | slice = slice(n) if rows is None else rows[:n].long()
    total = linear(x.float(), Dense(dense.weight, dense.bias), offsets)[:n]
    added = residual[take].float()
    if norm is not None:
        assert affine is not None
        added = normalise(residual[take], Moments(norm.values[take], norm.tile), affine, expert)
    out = x.new_empty(len(x), dense.weight.shape[1])
    out[:n] = (total + added).to(x.dtype)
    return out, moments(out, out.shape[1])


def attention(qkv: Tensor, cu: Tensor, heads: int, longest: int) -> Tensor:
    """Each sequence attends to itself: qkv [T, 3H] to [T, H]. No sequence is longer than `longest`."""
    width = qkv.shape[1] // 3
    out = qkv.new_empty(len(qkv), width)
    for first, last in pairwise(cu.tolist()):
        assert last - first <= longest
        if last > first:
            parts = qkv[first:last].float().view(last - first, 3, heads, width // heads)
            q, k, v = parts.permute(1, 2, 0, 3).unbind(0)
            seen = functional.scaled_dot_product_attention(q, k, v)
            out[first:last] = seen.transpose(0, 1).reshape(last - first, width).to(qkv.dtype)
    return out


def embed(
    ids: Tensor, segments: Tensor, places: Tensor, tables: Tables, offsets: Tensor, *,
    rows: Tensor | None = None, capacity: int = 0,
) -> Tensor:  # fmt: skip
    """LayerNorm(word + place + segment) of ids, segments, places [T]: [T, H], or [capacity, H] where `rows` picks."""
    expert = expert_of(offsets)
    n = len(expert)
    take: Tensor | slice = slice(n) if rows is None else rows[:n].long()
    total = tables.words[expert, ids[take].long()].float()
    total = (
        total + tables.places[expert, places[take].long()] + tables.segments[expert, segments[take].long()]
    )
    whole = moments(total, total.shape[1])
    out = tables.words.new_empty(capacity or len(ids), total.shape[1])
    out[:n] = normalise(total, whole, tables.affine, expert).to(out.dtype)
    return out


def head(x: Tensor, norm: Moments, cu: Tensor, rows: HeadRows, weights: HeadWeights) -> Tensor:
    """Outputs FP32 [R, Q] from mean and first token of LayerNorm(x), features and model."""
    out = x.new_empty(len(rows.sequence), weights.out.shape[1], dtype=torch.float32)
    for row, (sequence, e, source) in enumerate(
        zip(rows.sequence.tolist(), rows.expert.tolist(), rows.source.tolist(), strict=True)
    ):
        if sequence >= 0:
            at = slice(int(cu[sequence]), int(cu[sequence + 1]))
            expert = torch.full((at.stop - at.start,), e, device=x.device)
            text = normalise(x[at], Moments(norm.values[at], norm.tile), weights.affine, expert)
            facts = _facts(rows.features[source], weights, e)
            parts = [text.mean(0), text[0], facts, weights.models[e, rows.model[source].long()]]
            hidden = functional.gelu(weights.mix[e] @ torch.cat(parts) + weights.b_mix[e])
            raw = weights.out[e] @ hidden + weights.b_out[e]
            steps = torch.cat([raw[:1], functional.softplus(raw[1:])])
            out[row] = torch.cumsum(steps, 0) if weights.rising[e] else raw
    return out


def _facts(features: Tensor, weights: HeadWeights, e: int) -> Tensor:
    gone = torch.isnan(features)
    known = torch.where(gone, torch.zeros_like(features), features)
    level = (torch.sign(known) * torch.log1p(known.abs()) - weights.mean[e]) / weights.scale[e]
    level = torch.where(gone, torch.zeros_like(level), level).clamp(-6, 6)
    first = functional.gelu(weights.facts1[e] @ torch.cat([level, gone.float()]) + weights.b_facts1[e])
    return functional.gelu(weights.facts2[e] @ first + weights.b_facts2[e])


def route(
    scores: Tensor, lexical: Tensor | None, text: Tensor, cu: Tensor, experts: int, capacity: int
) -> Route:
    """Send each row to its likeliest bucket and pack by expert, in order of rows.

    scores [B, Q] of the router, its first three columns the buckets'; `lexical` [B, 3] are chances to average with;
    row b reads sequence `text[b]` (-1 is padding) of `cu`. `experts` is E, of which the first three are the buckets'.
    """
    chances = torch.softmax(scores[:, :3].float(), dim=1)
    if lexical is not None:
        chances = (chances + lexical) / 2
    expert = chances.argmax(1)
    real = text >= 0
    order = torch.argsort(torch.where(real, expert, experts), stable=True)[: int(real.sum())]
    sequence = torch.full_like(text, -1)
    sequence[order] = torch.arange(len(order), dtype=text.dtype, device=text.device)
    spans = [torch.arange(int(cu[t]), int(cu[t + 1])) for t in text[order]]
    sizes = torch.tensor([len(span) for span in spans])
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    rows = torch.zeros(capacity, dtype=torch.int32, device=scores.device)
    if spans:
        rows[: int(ends[-1])] = torch.cat(spans).to(rows)
    starts = [int(ends[int((expert[order] < e).sum())]) for e in range(experts)]
    full = torch.cat([ends, ends[-1:].expand(len(text) - len(order))])
    offsets = torch.tensor([*starts, int(ends[-1])])
    return Route(
        chances,
        rows,
        full.to(rows),
        offsets.to(rows),
        sequence.to(rows),
        torch.where(real, expert, 0).to(rows),
    )
