"""Sum of word, place and segment embeddings, and its LayerNorm: one block a token, one launch for all experts."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mope.kernels import launch
from mope.kernels.operands import EPS, Tables
from mope.kernels.parts import find_tile

WARPS = 4  # a row of 768 is 6 elements a thread: the launch waits for memory, not for threads


@triton.jit
def embedding_kernel(
    ids,  # [T]
    segments,  # [T]
    places,  # [T]
    words,  # [E, V, H]
    place_table,  # [E, L, H]
    segment_table,  # [E, G, H]
    gamma,  # [E, H]
    beta,  # [E, H]
    offsets,  # [E + 1]
    rows,  # [T'] or None: which token stands at each place
    y,  # [T', H]
    VOCAB: tl.constexpr,
    LENGTH: tl.constexpr,
    SEGMENTS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_UP: tl.constexpr,
    EXPERTS: tl.constexpr,
    EPS: tl.constexpr,
):
    """(e - mean(e)) / sqrt(var(e) + EPS) * gamma + beta of e = word + place + segment."""
    row = tl.program_id(0)
    if row < tl.load(offsets + EXPERTS):
        expert, _first, _end = find_tile(offsets, row, EXPERTS, 1)
        wide = expert.to(tl.int64)
        token = row
        if rows is not None:
            token = tl.load(rows + row)
        col = tl.arange(0, WIDTH_UP)
        real = col < WIDTH
        word = (wide * VOCAB + tl.load(ids + token)) * WIDTH + col
        place = (wide * LENGTH + tl.load(places + token)) * WIDTH + col
        segment = (wide * SEGMENTS + tl.load(segments + token)) * WIDTH + col
        total = tl.load(words + word, mask=real, other=0.0).to(tl.float32)
        total += tl.load(place_table + place, mask=real, other=0.0).to(tl.float32)
        total += tl.load(segment_table + segment, mask=real, other=0.0).to(tl.float32)
        mean = tl.sum(total, axis=0) / WIDTH
        away = tl.where(real, total - mean, 0.0)
        scale = tl.rsqrt(tl.sum(away * away, axis=0) / WIDTH + EPS)
        at = wide * WIDTH + col
        out = away * scale * tl.load(gamma + at, mask=real) + tl.load(beta + at, mask=real)
        tl.store(y + row.to(tl.int64) * WIDTH + col, out.to(y.dtype.element_ty), mask=real)


def embed(
    ids: Tensor, segments: Tensor, places: Tensor, tables: Tables, offsets: Tensor, *,
    rows: Tensor | None = None, capacity: int = 0,
) -> Tensor:  # fmt: skip
    """LayerNorm(word + place + segment) of ids, segments, places [T]: [T, H], or [capacity, H] where `rows` picks."""
    experts, vocab, width = tables.words.shape
    tokens = capacity or len(ids)
    y = launch.empty((tokens, width), tables.words)
    launch.run(
        embedding_kernel, (tokens,),
        ids, segments, places, tables.words, tables.places, tables.segments, tables.affine.gamma,
        tables.affine.beta, offsets, rows, y, VOCAB=vocab, LENGTH=tables.places.shape[1],
        SEGMENTS=tables.segments.shape[1], WIDTH=width, WIDTH_UP=triton.next_power_of_2(width),
        EXPERTS=experts, EPS=EPS, num_warps=WARPS,
    )  # fmt: skip
    return y
