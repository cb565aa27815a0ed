"""Attention inside each sequence of a packed batch, in one launch for all sequences and heads.

The tile sizes and their reasons are in tiles.json.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mope.kernels import launch
from mope.kernels.parts import product
from mope.kernels.tiles import pick

LOG2_E = 1.4426950408889634


@triton.jit
def attention_kernel(
    qkv,  # [T, 3H]
    cu,  # [S + 1]
    out,  # [T, H]
    SCALE: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    HEAD_UP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """softmax(q k^T / sqrt(HEAD)) v of BLOCK_M queries of one head, BLOCK_N keys at a time, by online softmax."""
    WIDTH: tl.constexpr = HEADS * HEAD
    head = tl.program_id(0)
    sequence = tl.program_id(2)
    start = tl.load(cu + sequence)
    end = tl.load(cu + sequence + 1)
    first = start + tl.program_id(1) * BLOCK_M
    if first < end:
        dim = tl.arange(0, HEAD_UP)
        real = dim < HEAD
        row = first + tl.arange(0, BLOCK_M)
        inside = row < end
        row = row.to(tl.int64)
        base = qkv + head * HEAD + dim
        q = tl.load(
            base[None, :] + row[:, None] * (3 * WIDTH), mask=inside[:, None] & real[None, :], other=0.0
        )
        top = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
        weight = tl.zeros((BLOCK_M,), dtype=tl.float32)
        total = tl.zeros((BLOCK_M, HEAD_UP), dtype=tl.float32)
        for key in range(start, end, BLOCK_N):
            other = key + tl.arange(0, BLOCK_N)
            seen = other < end
            at = other.to(tl.int64) * (3 * WIDTH)
            shown = seen[:, None] & real[None, :]
            k = tl.load(base[None, :] + WIDTH + at[:, None], mask=shown, other=0.0)
            v = tl.load(base[None, :] + 2 * WIDTH + at[:, None], mask=shown, other=0.0)
            score = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
            score = product(q, tl.trans(k), score, UPCAST, PRECISION) * SCALE
            score = tl.where(seen[None, :], score, float("-inf"))
            higher = tl.maximum(top, tl.max(score, axis=1))
            shrink = tl.exp2(top - higher)
            share = tl.exp2(score - higher[:, None])
            weight = weight * shrink + tl.sum(share, axis=1)
            share = share.to(tl.float32 if UPCAST else v.dtype)
            total = product(share, v, total * shrink[:, None], UPCAST, PRECISION)
            top = higher
        total = total / weight[:, None]
        tl.store(
            out + row[:, None] * WIDTH + head * HEAD + dim[None, :],
            total.to(out.dtype.element_ty),
            mask=inside[:, None] & real[None, :],
        )


def attention(qkv: Tensor, cu: Tensor, heads: int, longest: int) -> Tensor:
    """Each sequence attends to itself: qkv [T, 3H] to [T, H]. No sequence is longer than `longest`."""
    width = qkv.shape[1] // 3
    size = width // heads
    assert qkv.is_contiguous()
    assert cu.dtype == torch.int32
    out = launch.empty((len(qkv), width), qkv)
    tile = pick(launch.architecture(qkv.device), "attention", longest, qkv.dtype == torch.float32)
    launch.run(
        attention_kernel, (heads, launch.ceil_div(longest, tile.m), len(cu) - 1),
        qkv, cu, out, SCALE=LOG2_E * size**-0.5, HEADS=heads, HEAD=size,
        HEAD_UP=max(16, triton.next_power_of_2(size)), BLOCK_M=tile.m, BLOCK_N=tile.n,
        num_warps=tile.warps, num_stages=tile.stages, **launch.multiply_mode(qkv),
    )  # fmt: skip
    return out
