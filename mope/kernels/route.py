"""Rows to experts on the device: softmax, choice of the bucket and packing by expert, in one launch.

Every block works out the whole batch for itself, which is a few vectors of B numbers: it needs no other launch and
no second pass to know where its row goes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mope.kernels import launch
from mope.kernels.operands import Route

TOKENS = 128  # tokens written at a time


@triton.jit
def route_kernel(
    scores,  # [B, Q]
    lexical,  # [B, 3] or None
    text,  # [B], -1 is padding
    cu,  # [S + 1]
    chances,  # [B, 3]
    rows,  # [T']
    cu_out,  # [B + 1]
    offsets,  # [E + 1]
    sequence,  # [B]
    expert_out,  # [B]
    B: tl.constexpr,
    B_UP: tl.constexpr,
    Q: tl.constexpr,
    EXPERTS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Expert of row b: argmax of softmax(scores), or of its mean with `lexical`; rows in order of (expert, b)."""
    mine = tl.program_id(0)
    row = tl.arange(0, B_UP)
    exists = row < B
    s0 = tl.load(scores + row * Q, mask=exists, other=0.0)
    s1 = tl.load(scores + row * Q + 1, mask=exists, other=0.0)
    s2 = tl.load(scores + row * Q + 2, mask=exists, other=0.0)
    top = tl.maximum(s0, tl.maximum(s1, s2))
    p0 = tl.exp(s0 - top)
    p1 = tl.exp(s1 - top)
    p2 = tl.exp(s2 - top)
    total = p0 + p1 + p2
    p0 = p0 / total
    p1 = p1 / total
    p2 = p2 / total
    if lexical is not None:
        p0 = (p0 + tl.load(lexical + row * 3, mask=exists, other=0.0)) / 2
        p1 = (p1 + tl.load(lexical + row * 3 + 1, mask=exists, other=0.0)) / 2
        p2 = (p2 + tl.load(lexical + row * 3 + 2, mask=exists, other=0.0)) / 2
    expert = tl.where(p1 > p0, 1, 0)
    expert = tl.where(p2 > tl.maximum(p0, p1), 2, expert)

    where = tl.load(text + row, mask=exists, other=-1)
    real = where >= 0
    where = tl.maximum(where, 0)
    start = tl.load(cu + where, mask=real, other=0)
    size = tl.load(cu + where + 1, mask=real, other=0) - start
    own = row == mine
    my_expert = tl.sum(tl.where(own, expert, 0), axis=0)
    my_start = tl.sum(tl.where(own, start, 0), axis=0)
    my_size = tl.sum(tl.where(own, size, 0), axis=0)
    is_real = tl.sum(tl.where(own & real, 1, 0), axis=0)
    ahead = real & ((expert < my_expert) | ((expert == my_expert) & (row < mine)))
    rank = tl.sum(tl.where(ahead, 1, 0), axis=0)
    at = tl.sum(tl.where(ahead, size, 0), axis=0)

    tl.store(chances + row * 3, p0, mask=own)
    tl.store(chances + row * 3 + 1, p1, mask=own)
    tl.store(chances + row * 3 + 2, p2, mask=own)
    tl.store(expert_out + mine, tl.where(is_real > 0, my_expert, 0))
    tl.store(sequence + mine, tl.where(is_real > 0, rank, -1))
    if is_real > 0:
        tl.store(cu_out + rank, at)
        for done in range(0, my_size, TOKENS):
            token = done + tl.arange(0, TOKENS)
            tl.store(rows + at + token, my_start + token, mask=token < my_size)
    if mine == 0:
        count = tl.sum(tl.where(real, 1, 0), axis=0)
        whole = tl.sum(size, axis=0)
        tl.store(cu_out + row, whole, mask=exists & (row >= count))
        tl.store(cu_out + B, whole)
        for e in tl.static_range(EXPERTS + 1):
            tl.store(offsets + e, tl.sum(tl.where(real & (expert < e), size, 0), axis=0))


def route(
    scores: Tensor, lexical: Tensor | None, text: Tensor, cu: Tensor, experts: int, capacity: int
) -> Route:
    """Send each row to its likeliest bucket and pack by expert, in order of rows.

    scores [B, Q] of the router, its first three columns the buckets'; `lexical` [B, 3] are chances to average with;
    row b reads sequence `text[b]` (-1 is padding) of `cu`. `experts` is E, of which the first three are the buckets'.
    """
    batch, outputs = scores.shape
    assert scores.is_contiguous()
    chances = launch.empty((batch, 3), scores, torch.float32)
    rows, cu_out, offsets, sequence, expert = (
        launch.empty((size,), text) for size in (capacity, batch + 1, experts + 1, batch, batch)
    )
    launch.run(
        route_kernel, (batch,),
        scores, lexical, text, cu, chances, rows, cu_out, offsets, sequence, expert,
        B=batch, B_UP=triton.next_power_of_2(batch), Q=outputs, EXPERTS=experts, TOKENS=TOKENS,
        num_warps=4,
    )  # fmt: skip
    return Route(chances, rows, cu_out, offsets, sequence, expert)
