from __future__ import annotations

from typing import Any

import pytest

from mope.errors import MissingExtra
from mope.evaluation import plots
from mope.evaluation.evaluate import collect, measure

pytest.importorskip("matplotlib")
SOFT = "MoPE (routed, soft)"
NAMES = ["predicted.png", "deciles.png", "reliability.png", "confusion.png"]


def drawn(world: Any) -> dict[str, bytes]:
    rows = collect(*world, "all")
    return plots.pictures(measure(rows, n_boot=20), rows)


def test_four_pictures(worlds: Any) -> None:
    found = drawn(worlds.noisy(100))
    assert list(found) == NAMES
    assert all(png.startswith(b"\x89PNG") for png in found.values())


@pytest.mark.parametrize(
    ("forecasts", "lengths"),
    [
        ([0, 0], [[0], [0]]),  # nothing to see on a log axis
        ([5, 5], [[5], [5]]),  # one cell, one decile
        ([20_000.5, 0.2], [[0, 90_000], [3]]),
        ([7], [[7]]),  # one conversation, no intervals
    ],
)
def test_odd_worlds_can_be_drawn(worlds: Any, forecasts: list[float], lengths: list[list[int]]) -> None:
    assert list(drawn(worlds.exact({SOFT: forecasts}, lengths))) == NAMES


def test_without_quantiles_and_router_two_pictures_remain(
    worlds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, data = worlds.exact({"constant": [5, 5], SOFT: [5, 6]}, [[5], [6]])
    plain = bundle.columns(data.requests, None)["constant"]
    monkeypatch.setattr(bundle, "columns", lambda requests, lengths: {SOFT: plain})
    assert list(drawn((bundle, data))) == NAMES[:2]


def test_without_matplotlib_the_install_command_is_named(
    worlds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mope.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'mope-llm\[plots\]'"):
        drawn(worlds.noisy(20))
