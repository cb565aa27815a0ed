from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.adapt.scores import Ends, quantile
from mope.adapt.window import HALF, Window


def fill(window: Window, rows: list[tuple[float, str]]) -> list[bool]:
    return [window.add(Ends(value - 1, value, value + 1), client) for value, client in rows]


def test_alone_a_client_has_the_whole_window_and_the_oldest_goes_first() -> None:
    window = Window(3, 0.1, 2)
    assert fill(window, [(1, "a"), (2, "a"), (3, "a"), (0, "a")]) == [True] * 4
    assert window.mid == [0, 2, 3]
    assert [entry.scores.mid for entry in window.entries.values()] == [2, 3, 0]


def test_beside_enough_others_a_client_has_its_share_and_replaces_only_itself() -> None:
    window = Window(100, 0.1, 36)
    fill(window, [(float(n), f"c{n}") for n in range(36)])
    assert fill(window, [(50.0 + n, "loud") for n in range(10)]) == [True] * 4 + [False] * 6
    assert window.mid[-4:] == [56.0, 57.0, 58.0, 59.0]
    assert len(window) == 40


def test_who_spoke_first_gives_way_as_others_come() -> None:
    window = Window(20, 0.1, 10)
    fill(window, [(0.0, "loud")] * 20)
    for n in range(30):
        fill(window, [(1.0, f"c{n}"), (0.0, "loud")])
    held = Counter(entry.client for entry in window.entries.values())
    assert held["loud"] <= 2


def test_who_has_left_is_forgotten() -> None:
    window = Window(10, 0.1, 5)
    fill(window, [(1.0, f"c{n}") for n in range(9)])
    fill(window, [(0.0, "a")] * (2 * HALF * 10 + 10))
    assert {entry.client for entry in window.entries.values()} == {"a"}
    assert len(window) == 10


@given(st.lists(st.tuples(st.floats(-3, 3), st.sampled_from("abcde")), max_size=80))
def test_the_sorted_scores_are_those_of_the_entries(rows: list[tuple[float, str]]) -> None:
    window = Window(15, 0.2, 6)
    fill(window, rows)
    kept = [entry.scores for entry in window.entries.values()]
    assert window.low == sorted(score.low for score in kept)
    assert window.mid == sorted(score.mid for score in kept)
    assert window.high == sorted(score.high for score in kept)
    assert len(window) <= 15
    held = Counter(entry.client for entry in window.entries.values())
    assert {client: len(numbers) for client, numbers in window.own.items()} == dict(held)


@pytest.mark.parametrize(("level", "value"), [(0.5, 2.0), (0.1, 1.0), (0.9, 3.0), (0.25, 1.0), (0.375, 1.5)])
def test_the_conformal_quantile_counts_one_more_row(level: float, value: float) -> None:
    assert quantile([1.0, 2.0, 3.0], level) == value
