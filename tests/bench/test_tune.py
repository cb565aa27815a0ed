from __future__ import annotations

import json

from mope.bench.kernels import tune
from mope.kernels.tiles import Tile


def test_the_fastest_tile_of_each_size_is_kept_and_like_rows_are_joined():
    small, large = Tile(64, 32, 64, stages=4), Tile(128, 128, 64, warps=8, stages=3)

    def timer(op: str, tokens: int, tile: Tile) -> float | None:
        if tile == Tile(64, 64, 64, stages=2):
            return None  # does not fit
        return 1.0 if tile in (small, large) else 2.0

    rows = tune.tuned(timer, False, "measured")
    assert rows["why"] == "measured"
    wanted = [
        [512, {"m": 64, "n": 32, "k": 64, "stages": 4}],
        [None, {"m": 128, "n": 128, "k": 64, "warps": 8}],
    ]
    assert rows["linear"] == rows["out"] == rows["down"] == wanted


def test_only_down_is_split_and_descriptors_are_for_those_who_have_them():
    assert {tile.split for tile in tune.candidates("down", 128, False)} == {1, 2, 4}
    assert {tile.split for tile in tune.candidates("linear", 128, False)} == {1}
    assert {tile.tma for tile in tune.candidates("out", 8192, True)} == {False, True}
    assert not any(tile.tma or tile.persist for tile in tune.candidates("out", 8192, False))


def test_the_table_keeps_what_was_not_tuned():
    row = [None, {"m": 64, "n": 64, "k": 64}]
    found = json.loads(tune.merged("sm_100", {"why": "here", "linear": [row]}))
    assert found["sm_100"]["linear"] == [row]
    assert found["sm_100"]["attention"] == found["other"]["attention"]
    assert found["sm_90"]["why"].startswith("compiled")
