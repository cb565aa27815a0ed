from __future__ import annotations

import pytest

from mope.data.records import Example
from mope.evaluation.bootstrap import Draws
from mope.inspect.noise import Noise
from mope.types import Request


def noise(*rows: tuple[str, str, tuple[int, ...]]) -> Noise:
    found = Noise()
    for model, group, lengths in rows:
        found.add(Example(Request(group, model=model), lengths, group))
    return found


def test_the_floor_is_the_distance_to_the_other_answers_median() -> None:
    found = noise(("a", "x", (10, 30)), ("a", "y", (100, 100)), ("b", "x", (7,)), ("b", "y", (5, 5)))
    told = found.to_dict(Draws(50))
    assert told is not None
    # floors 20, 0, 0; medians of a: 65, of b: 5
    assert told["floor"]["value"] == pytest.approx(20 / 3)  # type: ignore[index]
    assert told["constant"]["value"] == pytest.approx((45 + 35 + 0) / 3)  # type: ignore[index]
    assert told["explainable"] == pytest.approx(1 - 20 / 80)
    assert (told["examples"], told["answers"]) == (3, 6)


def test_without_repeats_there_is_none() -> None:
    assert noise(("a", "x", (10,))).to_dict(Draws(50)) is None


def test_answers_that_never_differ_leave_nothing_to_explain() -> None:
    told = noise(("a", "x", (10, 10)), ("a", "y", (10, 10))).to_dict(Draws(50))
    assert told is not None
    assert told["explainable"] == 0.0
