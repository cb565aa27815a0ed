"""Every launch that ships, on buffers without memory: what is compiled for cards that are not at hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mope.kernels import attention, embedding, head, linear, route, tiles
from mope.kernels.operands import Affine, Dense, HeadRows, HeadWeights, Moments, Tables
from mope.kernels.tiles import Tile

# BERT-base, three experts, and the sizes of `mope.predictor.expert.Head`.
H, INNER, HEADS, E, T = 768, 3072, 12, 3, 4096
F, D, C, W, Q = 73, 128, 32, 256, 13


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A buffer without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def halves(*shape: int) -> Tensor:
    """A BF16 buffer."""
    return on_meta(*shape, dtype=torch.bfloat16)


def ints(*shape: int) -> Tensor:
    """An int32 buffer."""
    return on_meta(*shape, dtype=torch.int32)


def affine() -> Affine:
    """A norm of every expert."""
    return Affine(on_meta(E, H), on_meta(E, H))


def up(tile: Tile, width: int = H) -> None:
    """The linear map with the longest epilogue: norm, bias, GELU."""
    dense = Dense(halves(E, 4 * width, width), on_meta(E, 4 * width), on_meta(E, 4 * width))
    norm = Moments(on_meta(T, width // 128, 2), 128)
    linear.launch_linear(
        halves(T, width), dense, ints(E + 1), halves(T, 4 * width), tile, norm=norm, gelu=True
    )


def residual(tile: Tile, rows: bool) -> None:
    """The residual map with everything: norm of the residual, moments, and gathered rows or not."""
    dense, moments = Dense(halves(E, H, INNER), on_meta(E, H)), on_meta(T, H // (tile.n // tile.halves), 2)
    norm = Moments(on_meta(T, 6, 2), 128)
    linear.launch_linear(
        halves(T, INNER), dense, ints(E + 1), halves(T, H), tile, rows=ints(T) if rows else None, norm=norm,
        residual=halves(T, H), affine=affine(), moments=moments,
    )  # fmt: skip


def embed() -> None:
    """The first launch."""
    tables = Tables(halves(E, 30522, H), halves(E, 512, H), halves(E, 2, H), affine())
    embedding.embed(ints(T), ints(T), ints(T), tables, ints(E + 1), rows=ints(T), capacity=T)


def heads() -> None:
    """The last launch."""
    weights = HeadWeights(
        on_meta(E, F), on_meta(E, F), on_meta(E, D, 2 * F), on_meta(E, D), on_meta(E, D, D), on_meta(E, D),
        on_meta(E, 4, C), on_meta(E, W, 2 * H + D + C), on_meta(E, W), on_meta(E, Q, W), on_meta(E, Q), ints(E),
        affine(),
    )  # fmt: skip
    rows = HeadRows(ints(96), ints(96), ints(96), on_meta(32, F), ints(32))
    head.head(halves(T, H), Moments(on_meta(T, 12, 2), 64), ints(97), rows, weights)


def attend(longest: int, width: int = H) -> None:
    """Attention of twelve heads."""
    attention.attention(halves(T, 3 * width), ints(33), HEADS, longest)


def send() -> None:
    """Routing of 256 rows."""
    route.route(on_meta(256, Q), on_meta(256, 3), ints(256), ints(257), E, T)


def cases(arch: str) -> dict[str, Callable[[], None]]:
    """What ships for `arch`: each tile once, with the longest epilogue that it is used with."""
    rows = tiles.table()[arch]
    found: dict[str, Callable[[], None]] = {"embed": embed, "head": heads, "route": send}
    for name, longest, width in (("128", 128, H), ("512", 512, H), ("128 of width 384", 128, 384)):
        found[f"attention {name}"] = partial(attend, longest, width)
    makers: dict[str, Callable[[Tile], None]] = {
        "linear": partial(up, width=H),
        "down": partial(residual, rows=False),
        "out": partial(residual, rows=True),
    }
    for op, make in makers.items():
        for tile in dict.fromkeys(Tile(**row) for _, row in rows[op]):
            found[f"{op} {tile.label}"] = partial(make, tile)
    widest = Tile(**rows["linear"][-1][1])
    found[f"linear {widest.label} of width 384"] = partial(up, widest, 384)
    return found
