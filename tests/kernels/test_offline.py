"""Every kernel, in every configuration that ships, compiles for cards that are not at hand, and fits them."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

from mope.kernels import launch, offline, tiles
from mope.kernels.shipped import cases, residual
from mope.kernels.tiles import Tile

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
