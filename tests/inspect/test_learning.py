from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.data.records import Example, LengthData
from mope.data.split import part_of
from mope.evaluation.bootstrap import Draws
from mope.inspect.advice import suggest
from mope.inspect.curve import Curve, learning_curve, plain
from mope.inspect.law import fit
from mope.inspect.sample import MOST_A_GROUP, Sample
from mope.types import Request

SIZES = np.array([100.0, 200.0, 400.0, 800.0, 1600.0])


@pytest.mark.parametrize(
    ("floor", "scale", "power"), [(40.0, 300.0, 0.5), (0.0, 500.0, 0.25), (80.0, 0.0, 0.05)]
)
def test_a_law_is_found_again(floor: float, scale: float, power: float) -> None:
    law = fit(SIZES, (floor + scale * SIZES**-power)[None])
    assert law.at(6400.0)[0] == pytest.approx(floor + scale * 6400**-power, rel=1e-6)


@given(st.lists(st.floats(0.1, 1000), min_size=5, max_size=5))
def test_a_law_never_rises_nor_falls_below_zero(errors: list[float]) -> None:
    law = fit(SIZES, np.array([errors]))
    told = [law.at(size)[0] for size in (50.0, 1600.0, 1e5, 1e9)]
    assert all(value >= 0 for value in told)
    assert told == pytest.approx(sorted(told, reverse=True), rel=1e-9)


def rows(count: int, seed: int = 0, known: bool = True) -> LengthData:
    """Prompts that say how long their answers will be, or do not."""
    rng = random.Random(seed)
    found = []
    for n in range(count):
        asked = rng.choice((50, 100, 200, 400, 800))
        length = round((asked if known else rng.choice((50, 800))) * rng.uniform(0.9, 1.1))
        model = rng.choice(("terse", "chatty"))
        length = length * 3 if model == "chatty" else length
        found.append(Example(Request(f"Write {asked} words, number {n}", model=model), (length,), f"g{n}"))
    return LengthData(found)


def test_a_curve_falls_with_data_and_says_what_more_would_bring() -> None:
    pytest.importorskip("sklearn")
    data, said = rows(900), []
    curve = learning_curve(data, 0.1, Draws(100), said.append)
    assert isinstance(curve, Curve)
    train = sum(part_of(group) == "train" for group in data.groups)
    assert curve.sizes == [round(train * share) for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)]
    assert len(said) == 5
    errors = [told["value"] for told in curve.errors]
    assert errors[-1] < 0.6 * errors[0]
    assert errors[-1] < 160  # models differ by a factor of 3: without the model's name it would be 300
    assert curve.at_hand == 10 * train  # of ten times as many rows
    assert list(curve.ahead) == [10 * train, 20 * train, 40 * train, 100 * train]
    assert all(told["low"] <= told["value"] + 1e-6 for told in curve.ahead.values())
    assert curve.doubling["value"] >= 0


def test_the_same_data_gives_the_same_curve() -> None:
    pytest.importorskip("sklearn")
    data = rows(400)
    curves = [plain(learning_curve(data, 1.0, Draws(20))) for _ in range(2)]
    assert curves[0] == curves[1]


def test_too_few_rows_make_no_curve() -> None:
    assert plain(learning_curve(rows(50), 1.0, Draws(10)))["none_because"].startswith("40 examples")


def test_one_length_makes_no_curve() -> None:
    data = LengthData([Example(Request(f"p{n}"), (7,), f"g{n}") for n in range(500)])
    assert learning_curve(data, 1.0, Draws(10)) == "every length is the same"


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 20), st.randoms())
def test_a_sample_is_whole_groups_in_whatever_order_they_come(groups: list[int], most: int, rng) -> None:  # type: ignore[no-untyped-def]
    counts = Counter(groups)
    found = []
    for _ in range(2):
        sample = Sample(most)
        for group in groups:
            sample.add(Example(Request("p"), (1,), f"g{group}"))
        found.append(Counter(sample.data().groups))
        assert len(sample.groups) == len(counts)
        assert sample.share == len(found[-1]) / len(counts)
        rng.shuffle(groups)
    assert found[0] == found[1]
    assert all(min(MOST_A_GROUP, counts[int(group[1:])]) == n for group, n in found[0].items())
    assert found[0].total() <= most or len(found[0]) == 1
    assert found[0]


def test_of_a_large_group_a_part_is_kept_whatever_the_order() -> None:
    examples = [Example(Request("p", model=f"m{n}"), (1,), "g") for n in range(50)]
    found = []
    for order in (examples, examples[::-1]):
        sample = Sample(100)
        for example in order:
            sample.add(example)
        found.append(sample.data().models)
    assert found[0] == found[1]
    assert len(set(found[0])) == MOST_A_GROUP


def test_the_usual_percentiles_are_suggested_where_they_do() -> None:
    bounds, failed = suggest(Counter(range(1000)))
    assert bounds is not None
    assert (bounds.percentiles, failed) == ((33.0, 66.0, 99.0), "")


def test_others_are_suggested_where_half_of_the_lengths_are_one() -> None:
    bounds, failed = suggest(Counter({1: 75, **dict.fromkeys(range(100, 125), 1)}))
    assert bounds is not None
    assert bounds.percentiles == (50.0, 90.0, 99.0)
    assert "bucket" in failed


def test_one_length_cannot_be_parted() -> None:
    bounds, failed = suggest(Counter({5: 10}))
    assert bounds is None
    assert "one-class" in failed
