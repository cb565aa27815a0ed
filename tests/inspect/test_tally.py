from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.data.records import Example
from mope.inspect import tally as module
from mope.inspect.tally import Pile, Tally, limit_of, percentiles
from mope.types import Request


def example(
    *lengths: int, model: str = "m", source: str = "s", cap: int | None = None, most: int | None = None
) -> Example:
    return Example(Request("p", model=model, max_tokens=most), lengths, "g", source, cap)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.lists(st.floats(0, 100), max_size=4))
def test_percentiles_of_counts_are_those_of_the_values(values: list[int], levels: list[float]) -> None:
    assert percentiles(Counter(values), levels) == pytest.approx(np.percentile(values, levels).tolist())


def test_a_group_counts_answers_and_those_at_their_limit() -> None:
    tally = Tally()
    for each in (
        example(10, 20, cap=20),
        example(30, most=30),
        example(5, cap=9, most=4),
        example(7),
        example(0),
    ):
        tally.add(each)
    row = tally.groups["s", "m"].row()
    assert (row["examples"], row["answers"], row["min"], row["max"], row["empty"]) == (5, 6, 0, 30, 1)
    assert row["limit_known"] == pytest.approx(4 / 6)
    assert row["capped"] == pytest.approx(3 / 6)
    assert row["reached_limits"] == {"20": 1, "30": 1, "4": 1}
    assert limit_of(example(5, cap=9, most=4)) == 4


def test_groups_are_merged_by_one_name() -> None:
    tally = Tally()
    for model, source in (("a", "x"), ("a", "y"), ("b", "y")):
        tally.add(example(10, model=model, source=source, cap=10))
    assert {key: group.answers for key, group in tally.merged("model").items()} == {
        ("", "a"): 2,
        ("", "b"): 1,
    }
    assert {key: group.capped for key, group in tally.merged("source").items()} == {
        ("x", ""): 1,
        ("y", ""): 2,
    }
    assert tally.merged()["", ""].limits == {10: 3}


def test_too_many_groups_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_GROUPS", 2)
    tally = Tally()
    for model in "abcda":
        tally.add(example(10, model=model))
    assert {key[1]: group.answers for key, group in tally.groups.items()} == {"a": 2, "b": 1, "(others)": 2}


def test_a_pile_is_found_and_told_whether_its_length_is_round() -> None:
    tally = Tally()
    for length in range(100, 600):
        tally.add(example(length))
    assert tally.piles() == []
    for _ in range(29):
        tally.add(example(256))
    for _ in range(24):
        tally.add(example(333))
    assert tally.piles() == [
        Pile("s", "m", 256, 30, 1.0, True),
        Pile("s", "m", 333, 25, pytest.approx(1.0), False),
    ]


def test_many_short_answers_are_no_pile() -> None:
    tally = Tally()
    tally.add(example(*[1] * 500, *range(100)))
    assert tally.piles() == []
