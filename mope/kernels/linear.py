"""Grouped linear maps: every token through its own expert's weight, in one launch.

The tile sizes and their reasons are in tiles.json.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mope.kernels import launch
from mope.kernels.operands import EPS, Affine, Dense, Moments
from mope.kernels.parts import count_tiles, erf_gelu, find_tile, product, row_norm
from mope.kernels.tiles import Tile, pick

ALONG = 8  # row tiles that run through all columns together, so that their weights stay in the L2 cache


@triton.jit
def finish(
    total,  # [M, BLOCK_N] FP32
    mean,  # [M], with norm
    scale,  # [M], with norm
    bias, sums, norm, residual, gamma, beta, y, moments,  # as in linear_kernel
    start,  # first row of the tile
    inside,  # [M]
    take,  # [M] row of the residual, counted from start where rows is None
    rows,
    expert,
    first_col,
    N: tl.constexpr,
    GELU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The epilogue of BLOCK_N columns from `first_col`: norm, bias, GELU or residual, moments, store."""
    PARTS: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    along = tl.arange(0, BLOCK_N)
    real = along < N - first_col
    column = tl.minimum(first_col + along, N - 1)
    at = expert * N + column
    if sums is not None:
        total = (total - mean[:, None] * tl.load(sums + at)[None, :]) * scale[:, None]
    total += tl.load(bias + at)[None, :]
    if GELU:
        total = erf_gelu(total)
    # Unlike the clamped ones, these addresses differ by constants, which saves 100 registers.
    place = tl.arange(0, BLOCK_M)
    corner = start * N + first_col
    cell = place[:, None] * N + along[None, :]
    kept = inside[:, None] & real[None, :]
    if residual is not None:
        if rows is None:
            added = tl.load(residual + corner + cell, mask=kept, other=0.0).to(tl.float32)
        else:
            added = tl.load(residual + take.to(tl.int64)[:, None] * N + column[None, :]).to(tl.float32)
        if norm is not None:
            added = (added - mean[:, None]) * scale[:, None]
            added = added * tl.load(gamma + at)[None, :] + tl.load(beta + at)[None, :]
        total += added
    stored = total.to(y.dtype.element_ty)
    tl.store(y + corner + cell, stored, mask=kept)
    if moments is not None:
        value = stored.to(tl.float32)
        many = tl.maximum(tl.minimum(N - first_col, BLOCK_N), 1).to(tl.float32)
        middle = tl.sum(tl.where(real[None, :], value, 0.0), axis=1) / many
        away = tl.where(real[None, :], value - middle[:, None], 0.0)
        slot = moments + (start * PARTS + first_col // BLOCK_N) * 2 + place * (2 * PARTS)
        exists = inside & (first_col < N)
        tl.store(slot, middle, mask=exists)
        tl.store(slot + 1, tl.sum(away * away, axis=1), mask=exists)


@triton.jit
def linear_kernel(
    x,  # [T, K]
    x_tiles,  # descriptor of x or None
    w,  # [E, N, K]
    w_tiles,  # descriptor of w as [E * N, K] or None
    bias,  # [E, N]
    sums,  # [E, N] or None: the input still lacks its norm
    offsets,  # [E + 1]
    rows,  # [T] or None: which row of x (without residual) or of residual is read
    norm,  # [T, P, 2] or None: moments of x (without residual) or of residual
    residual,  # [T, N] or None
    gamma,  # [E, N] or None
    beta,  # [E, N] or None
    y,  # [T, N]
    moments,  # [T, N / BLOCK_N * HALVES, 2] or None: of y
    partial,  # [tiles, SPLIT, BLOCK_M, BLOCK_N] or None
    arrived,  # [tiles], all zero before and after, or None
    N: tl.constexpr,
    K: tl.constexpr,
    EXPERTS: tl.constexpr,
    NORM_TILE: tl.constexpr,
    GELU: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,
    HALVES: tl.constexpr,
    PERSIST: tl.constexpr,
    ALONG: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y = act(x W_e^T + b_e) or x W_e^T + b_e + residual, with the norms of the module's docstring put in.

    With SPLIT > 1 each block sums a slice of K; the last to arrive adds the slices in their order, so that the
    result does not depend on who that was.
    """
    TILES_N: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    SLICE: tl.constexpr = ((K + BLOCK_K * SPLIT - 1) // (BLOCK_K * SPLIT)) * BLOCK_K
    EVEN_K: tl.constexpr = K % (BLOCK_K * SPLIT) == 0
    tiles_m = count_tiles(offsets, EXPERTS, BLOCK_M)
    total_tiles = tiles_m * TILES_N * SPLIT
    for job in tl.range(tl.program_id(0), total_tiles, tl.num_programs(0), flatten=PERSIST):
        tile = job // SPLIT
        part = job % SPLIT
        band = tile // (ALONG * TILES_N) * ALONG
        height = tl.minimum(tiles_m - band, ALONG)
        tile_m = band + tile % (ALONG * TILES_N) % height
        tile_n = tile % (ALONG * TILES_N) // height
        expert, first, end = find_tile(offsets, tile_m, EXPERTS, BLOCK_M)
        wide_expert = expert.to(tl.int64)

        # Rows and columns past the end are read twice rather than masked: they are not stored.
        start = first.to(tl.int64)
        place = tl.arange(0, BLOCK_M)
        inside = place < end - first
        near = tl.minimum(place, end - first - 1)
        take = near
        if rows is None:
            base = start
        else:
            base = tl.zeros((), dtype=tl.int64)
            take = tl.load(rows + start + near)
        along = tl.arange(0, BLOCK_N)
        column = tl.minimum(tile_n * BLOCK_N + along, N - 1)
        inner = tl.arange(0, BLOCK_K)
        if residual is None:
            x_at = x + base * K + (take[:, None] * K + inner[None, :])
        else:
            x_at = x + start * K + (near[:, None] * K + inner[None, :])
        w_at = w + wide_expert * (N * K) + (column[None, :] * K + inner[:, None])

        total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for step in range(0, SLICE, BLOCK_K):
            k = part * SLICE + step
            if x_tiles is not None:
                a = x_tiles.load([first, k])
            elif EVEN_K:
                a = tl.load(x_at + k)
            else:
                a = tl.load(x_at + k, mask=inner[None, :] < K - k, other=0.0)
            if w_tiles is not None:
                b = w_tiles.load([expert * N + tile_n * BLOCK_N, k]).T
            elif EVEN_K:
                b = tl.load(w_at + k)
            else:
                b = tl.load(w_at + k, mask=inner[:, None] < K - k, other=0.0)
            total = product(a, b, total, UPCAST, PRECISION)

        last = True
        if SPLIT > 1:
            cell = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
            slot = partial + tile.to(tl.int64) * (SPLIT * BLOCK_M * BLOCK_N) + cell
            tl.store(slot + part * (BLOCK_M * BLOCK_N), total, cache_modifier=".cg")
            tl.debug_barrier()  # all threads' parts are written before the one atomic says so
            last = tl.atomic_add(arrived + tile, 1, sem="acq_rel") == SPLIT - 1
            if last:
                tl.debug_barrier()
                total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
                for other in range(SPLIT):
                    total += tl.load(slot + other * (BLOCK_M * BLOCK_N), cache_modifier=".cg")
                tl.store(arrived + tile, 0)
        if last:
            mean = 0.0
            scale = 0.0
            if norm is not None:
                WIDTH: tl.constexpr = N if residual is not None else K
                mean, scale = row_norm(norm, base, take, WIDTH, NORM_TILE, EPS)
            if HALVES == 2:
                pair = total.reshape(BLOCK_M, 2, BLOCK_N // 2).permute(0, 2, 1)
                left, right = tl.split(pair)
                finish(
                    left, mean, scale, bias, sums, norm, residual, gamma, beta, y, moments, start, inside, take,
                    rows, wide_expert, tile_n * BLOCK_N, N, GELU, BLOCK_M, BLOCK_N // 2,
                )  # fmt: skip
                finish(
                    right, mean, scale, bias, sums, norm, residual, gamma, beta, y, moments, start, inside, take,
                    rows, wide_expert, tile_n * BLOCK_N + BLOCK_N // 2, N, GELU, BLOCK_M, BLOCK_N // 2,
                )  # fmt: skip
            else:
                finish(
                    total, mean, scale, bias, sums, norm, residual, gamma, beta, y, moments, start, inside, take,
                    rows, wide_expert, tile_n * BLOCK_N, N, GELU, BLOCK_M, BLOCK_N,
                )  # fmt: skip


def launch_linear(
    x: Tensor, dense: Dense, offsets: Tensor, y: Tensor, tile: Tile, *, rows: Tensor | None = None,
    norm: Moments | None = None, residual: Tensor | None = None, affine: Affine | None = None,
    moments: Tensor | None = None, gelu: bool = False,
) -> None:  # fmt: skip
    """Write y [T, N], and its moments where asked, with a given tile: what the public functions below call."""
    experts, n, k = dense.weight.shape
    assert x.shape[1] == k
    assert x.is_contiguous()
    assert dense.weight.is_contiguous()
    assert offsets.dtype == torch.int32
    assert len(offsets) == experts + 1
    assert norm is None or residual is not None or dense.sums is not None
    split = tile.split if k % (tile.k * tile.split) == 0 else 1
    most = (launch.ceil_div(len(y), tile.m) + experts) * launch.ceil_div(n, tile.n)
    partial = arrived = None
    if split > 1:
        partial = launch.empty((most, split, tile.m, tile.n), x, torch.float32)
        arrived = launch.counters(x.device)[:most]
    blocks = min(most * split, launch.processors(x.device)) if tile.persist else most * split
    described = tile.tma and k % (16 // x.element_size()) == 0
    launch.run(
        linear_kernel, (blocks,),
        x, _describe(x, tile.m, tile.k) if described and (rows is None or residual is not None) else None,
        dense.weight, _describe(dense.weight.view(-1, k), tile.n, tile.k) if described else None,
        dense.bias, None if residual is not None or norm is None else dense.sums, offsets, rows,
        None if norm is None else norm.values, residual,
        None if affine is None else affine.gamma, None if affine is None else affine.beta,
        y, moments, partial, arrived,
        N=n, K=k, EXPERTS=experts, NORM_TILE=0 if norm is None else norm.tile, GELU=gelu, EPS=EPS,
        BLOCK_M=tile.m, BLOCK_N=tile.n, BLOCK_K=tile.k, SPLIT=split, HALVES=tile.halves,
        PERSIST=tile.persist,
        ALONG=ALONG, num_warps=tile.warps, num_stages=tile.stages, **launch.multiply_mode(x),
    )  # fmt: skip


def _describe(matrix: Tensor, high: int, wide: int) -> object:
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor.from_tensor(matrix, [high, wide])


def linear(
    x: Tensor, dense: Dense, offsets: Tensor, *, norm: Moments | None = None, rows: Tensor | None = None,
    gelu: bool = False, capacity: int = 0,
) -> Tensor:  # fmt: skip
    """x [T, K] through each token's expert: [T, N], or [capacity, N] where `rows` [T'] picks the rows of x."""
    tokens = capacity or len(x)
    y = launch.empty((tokens, dense.weight.shape[1]), x)
    tile = pick(launch.architecture(x.device), "linear", tokens, x.dtype == torch.float32)
    launch_linear(x, dense, offsets, y, tile, rows=rows, norm=norm, gelu=gelu)
    return y


def residual_linear(
    x: Tensor, dense: Dense, offsets: Tensor, residual: Tensor, *, norm: Moments | None = None,
    affine: Affine | None = None, rows: Tensor | None = None,
) -> tuple[Tensor, Moments]:  # fmt: skip
    """x [T, K] through each token's expert, plus the residual's row: [T, N] before its norm, and its moments.

    `norm` and `affine` are the LayerNorm that the residual still lacks; `rows` [T] picks the rows of the residual.
    """
    n = dense.weight.shape[1]
    y = launch.empty((len(x), n), x)
    op = "down" if x.shape[1] > n else "out"
    tile = pick(launch.architecture(x.device), op, len(x), x.dtype == torch.float32)
    columns = tile.n // tile.halves
    moments = launch.empty((len(x), launch.ceil_div(n, columns), 2), x, torch.float32)
    launch_linear(
        x, dense, offsets, y, tile, rows=rows, norm=norm, residual=residual, affine=affine, moments=moments
    )
    return y, Moments(moments, columns)
