from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.data.records import Example, LengthData
from mope.data.split import PARTS, Bounds, part_of, split
from mope.data.synthetic import synthetic
from mope.errors import ConfigError, DataError
from mope.types import Request


def test_parts_of_known_names_never_change() -> None:
    initials = "".join(part_of(f"conversation-{i}")[0] for i in range(12))
    assert initials == "tttctcvtvtvv"
    assert part_of("conversation-7") == "test"
    assert part_of("") == "calibration"


def test_proportions() -> None:
    parts = [part_of(str(i)) for i in range(20_000)]
    shares = [parts.count(part) / len(parts) for part in PARTS]
    # Four standard deviations of a share of 0.7 in 20,000 are 0.013.
    assert shares == pytest.approx([0.7, 0.1, 0.1, 0.1], abs=0.013)


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(), max_size=4), max_size=30), st.lists(st.text(max_size=4), max_size=10)
)
def test_split_is_whole_disjoint_and_stable(groups: list[str], more: list[str]) -> None:
    def where(names: list[str]) -> dict[str, set[str]]:
        data = LengthData([Example(Request("p"), (1,), name) for name in names])
        parts = split(data)
        assert tuple(parts) == PARTS
        indices = np.concatenate(list(parts.values()))
        assert sorted(indices.tolist()) == list(range(len(names)))
        return {part: {names[i] for i in found} for part, found in parts.items()}

    before, after = where(groups), where([*more, *reversed(groups)])
    for part in PARTS:
        assert before[part] <= after[part]
        assert not any(before[part] & after[other] for other in PARTS if other != part)


def test_no_conversation_is_torn_apart() -> None:
    data = synthetic(500, 1)
    parts = split(data)
    seen = [set(data.take(indices).groups) for indices in parts.values()]
    assert sum(map(len, seen)) == len(set(data.groups))


def test_bounds_of_one_to_a_hundred() -> None:
    bounds = Bounds.fit(np.arange(101))
    assert (bounds.short, bounds.medium, bounds.cap) == (33.0, 66.0, 99.0)
    assert bounds.bucket([0, 33, 34, 66, 67, 10**9]).tolist() == [0, 0, 1, 1, 2, 2]
    assert bounds.bucket([[1, 50], [70, 3]]).tolist() == [[0, 1], [2, 0]]
    assert Bounds.fit(np.arange(101), (50, 80, 100)).short == 50.0


@pytest.mark.parametrize("lengths", [[5] * 9, [0, 0], [3]])
def test_one_class_data_is_refused(lengths: list[int]) -> None:
    with pytest.raises(
        DataError, match=r"one-class data: all \d+ lengths.*what to do: check the length column"
    ):
        Bounds.fit(lengths)


@pytest.mark.parametrize(
    ("lengths", "bucket"),
    [([1] * 80 + [2] * 20, "medium"), ([1] * 20 + [2] * 80, "medium, long"), ([1, 1, 2, 3, 3, 3, 3], "long")],
)
def test_an_empty_bucket_is_refused(lengths: list[int], bucket: str) -> None:
    with pytest.raises(DataError, match=rf"empty bucket \({bucket}\).*what to do"):
        Bounds.fit(lengths)


@pytest.mark.parametrize("lengths", [[], [1, float("nan")], [1, float("inf")], [-1, 4]])
def test_lengths_that_are_none_are_refused(lengths: list[float]) -> None:
    with pytest.raises(DataError, match="finite lengths"):
        Bounds.fit(lengths)


@pytest.mark.parametrize(
    "levels", [(33, 66), (0, 66, 99), (66, 33, 99), (33, 33, 99), (33, 66, 101), (1, 2, float("nan")), ()]
)
def test_percentiles_must_increase(levels: Any) -> None:
    with pytest.raises(ConfigError, match="percentiles"):
        Bounds.fit([1, 2, 3], levels)


@pytest.mark.parametrize("cuts", [(2, 2, 9), (3, 2, 9), (1, 9, 8), (-1, 2, 9), (1, 2, float("inf"))])
def test_bounds_out_of_order_are_refused(cuts: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match="0 <= short < medium <= cap"):
        Bounds(*cuts)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=3, max_size=200))
def test_fitted_bounds_fill_every_bucket(lengths: list[int]) -> None:
    try:
        bounds = Bounds.fit(lengths)
    except DataError:
        return
    buckets = bounds.bucket(lengths)
    assert set(buckets.tolist()) == {0, 1, 2}
    order = np.argsort(lengths, kind="stable")
    assert (np.diff(buckets[order]) >= 0).all()
