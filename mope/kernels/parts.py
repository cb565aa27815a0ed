"""Pieces that several kernels are made of: products, row moments, finding the expert of a tile."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def product(a, b, total, UPCAST: tl.constexpr, PRECISION: tl.constexpr):
    """total + a @ b, summed in FP32."""
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def erf_gelu(x):
    """x * P(X <= x) of a standard normal X."""
    return x * 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def row_norm(
    moments,  # [T, P, 2]
    base,  # int64: the row that `rows` count from
    rows,  # [M]
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    EPS: tl.constexpr,
):
    """Mean and 1 / deviation [M] of whole rows from the moments of their P = ceil(WIDTH / TILE) parts (Chan)."""
    PARTS: tl.constexpr = (WIDTH + TILE - 1) // TILE
    PARTS_UP: tl.constexpr = triton.next_power_of_2(PARTS)
    part = tl.arange(0, PARTS_UP)
    count = tl.maximum(tl.minimum(WIDTH - part * TILE, TILE), 0).to(tl.float32)
    at = moments + base * (2 * PARTS) + (rows[:, None] * PARTS + part[None, :]) * 2
    known = (rows[:, None] >= 0) & (part[None, :] < PARTS)
    means = tl.load(at, mask=known, other=0.0)
    squares = tl.load(at + 1, mask=known, other=0.0)
    mean = tl.sum(means * count[None, :], axis=1) / WIDTH
    away = means - mean[:, None]
    variance = tl.sum(squares + count[None, :] * away * away, axis=1) / WIDTH
    return mean, tl.rsqrt(variance + EPS)


@triton.jit
def count_tiles(offsets, EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Tiles of BLOCK_M rows that cover every expert's part of `offsets` [E + 1]; no tile holds two experts."""
    tiles = 0
    for e in tl.static_range(EXPERTS):
        size = tl.load(offsets + e + 1) - tl.load(offsets + e)
        tiles += (size + BLOCK_M - 1) // BLOCK_M
    return tiles


@triton.jit
def find_tile(offsets, tile, EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Expert, first row and end of the expert's rows of a tile counted by `count_tiles`."""
    expert = 0
    first = 0
    end = 0
    before = 0
    for e in tl.static_range(EXPERTS):
        start = tl.load(offsets + e)
        stop = tl.load(offsets + e + 1)
        tiles = (stop - start + BLOCK_M - 1) // BLOCK_M
        inside = (tile >= before) & (tile < before + tiles)
        expert = tl.where(inside, e, expert)
        first = tl.where(inside, start + (tile - before) * BLOCK_M, first)
        end = tl.where(inside, stop, end)
        before += tiles
    return expert, first, end
