"""Every kernel, in every configuration that ships, compiles for cards that are not at hand, and fits them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import torch
from torch import Tensor

from mope.kernels import attention, embedding, head, launch, linear, offline, route, tiles
from mope.kernels.operands import Affine, Dense, HeadRows, HeadWeights, Moments, Tables
from mope.kernels.tiles import Tile

H, INNER, HEADS, E, T = 768, 3072, 12, 3, 4096
F, D, C, W, Q = 73, 128, 32, 256, 13


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def halves(*shape: int) -> Tensor:
    return on_meta(*shape, dtype=torch.bfloat16)


def ints(*shape: int) -> Tensor:
    return on_meta(*shape, dtype=torch.int32)


def affine() -> Affine:
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
    tables = Tables(halves(E, 30522, H), halves(E, 512, H), halves(E, 2, H), affine())
    embedding.embed(ints(T), ints(T), ints(T), tables, ints(E + 1), rows=ints(T), capacity=T)


def heads() -> None:
    weights = HeadWeights(
        on_meta(E, F), on_meta(E, F), on_meta(E, D, 2 * F), on_meta(E, D), on_meta(E, D, D), on_meta(E, D),
        on_meta(E, 4, C), on_meta(E, W, 2 * H + D + C), on_meta(E, W), on_meta(E, Q, W), on_meta(E, Q), ints(E),
        affine(),
    )  # fmt: skip
    rows = HeadRows(ints(96), ints(96), ints(96), on_meta(32, F), ints(32))
    head.head(halves(T, H), Moments(on_meta(T, 12, 2), 64), ints(97), rows, weights)


def cases(arch: str) -> dict[str, Callable[[], object]]:
    """What ships for `arch`: each tile once, with the longest epilogue that it is used with."""
    table = tiles.table()[arch]
    distinct = {op: {Tile(**row) for _, row in table[op]} for op in ("linear", "out", "down")}
    found: dict[str, Callable[[], object]] = {"embed": embed, "head": heads}
    found["route"] = lambda: route.route(on_meta(256, Q), on_meta(256, 3), ints(256), ints(257), E, T)
    for longest in (128, 512):
        found[f"attention {longest}"] = lambda n=longest: attention.attention(
            halves(T, 3 * H), ints(33), HEADS, n
        )
    found["attention of width 384"] = lambda: attention.attention(halves(T, 3 * 384), ints(33), 12, 128)
    found["linear of width 384"] = lambda: up(Tile(**table["linear"][-1][1]), 384)
    found |= {f"linear {tile}": lambda tile=tile: up(tile) for tile in distinct["linear"]}
    found |= {f"down {tile}": lambda tile=tile: residual(tile, False) for tile in distinct["down"]}
    found |= {f"out {tile}": lambda tile=tile: residual(tile, True) for tile in distinct["out"]}
    return found


MATRIX = ("linear", "out", "down", "attention")
SHIPPED = [(arch, name) for arch in offline.TARGETS for name in cases(arch)]


@pytest.mark.parametrize(("arch", "name"), SHIPPED)
def test_it_compiles_without_spills_and_within_the_cards_limits(arch: str, name: str) -> None:
    with launch.recording(arch) as record:
        cases(arch)[name]()
    (only,) = record.launches
    found = offline.resources(offline.compile_launch(only, arch))
    assert found.spills == 0
    assert 0 < found.registers <= (512 if arch.startswith("gfx") else 255)
    assert found.shared <= offline.SHARED_LIMIT[arch]
    assert found.matrix == name.startswith(MATRIX)


def test_a_tile_that_is_too_large_is_found() -> None:
    """The limits can fail: this one spills and does not fit."""
    with launch.recording("sm_80") as record:
        residual(Tile(128, 256, 64, 8, 6), False)
    found = offline.resources(offline.compile_launch(record.launches[0], "sm_80"))
    assert found.spills > 0
    assert found.shared > offline.SHARED_LIMIT["sm_80"]


@pytest.mark.parametrize("arch", ["sm_75", "sm_120", "gfx1100"])
def test_a_card_that_is_not_known_gets_the_modest_tiles(arch: str) -> None:
    other = tiles.table()["other"]
    assert tiles.pick(arch, "linear", 100) == Tile(**other["linear"][0][1])
    assert tiles.pick(arch, "linear", 10**6) == Tile(**other["linear"][-1][1])
    assert tiles.pick(arch, "linear", 100, wide=True) == Tile(**other["linear fp32"][0][1])
    assert tiles.pick("sm_90", "down", 100, wide=True) == Tile(**other["down fp32"][0][1])


def test_each_row_of_tiles_says_where_it_comes_from_and_ends_open() -> None:
    for arch, rows in tiles.table().items():
        assert rows["why"]
        for op in ("linear", "out", "down", "attention"):
            bounds = [most for most, _ in rows[op]]
            assert bounds[-1] is None, (arch, op)
            assert bounds[:-1] == sorted(bounds[:-1])
