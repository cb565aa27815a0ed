from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.data.records import Example, LengthData
from mope.data.synthetic import synthetic
from mope.errors import DataError
from mope.types import History, Request


def one(*lengths: int, prompt: str = "hi", group: str = "g") -> Example:
    return Example(Request(prompt), lengths, group)


def test_properties_are_columns_in_order() -> None:
    data = LengthData(
        [one(4, 1, 10, group="a"), Example(Request("yo", model="m"), (2, 5), "b", "s")], notes=["said"]
    )
    assert data.lengths.dtype == np.float64
    assert data.lengths.tolist() == [4.0, 3.5]
    assert data.groups == ["a", "b"]
    assert data.sources == ["", "s"]
    assert data.models == ["", "m"]
    assert [request.prompt for request in data.requests] == ["hi", "yo"]


def test_take_keeps_the_order_asked_for() -> None:
    data = LengthData([one(i) for i in range(5)])
    data.refused["no prompt"] += 3
    taken = data.take(np.array([3, 1]))
    assert taken.lengths.tolist() == [3.0, 1.0]
    assert not taken.refused


def test_no_data_has_an_empty_column() -> None:
    assert LengthData([]).lengths.shape == (0,)


@pytest.mark.parametrize("lengths", [(), (-1,), (3, -2)])
def test_an_example_without_usable_lengths_cannot_be_made(lengths: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="one or more output lengths"):
        one(*lengths)


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_digest_does_not_see_the_order_of_rows_or_samples(rng: random.Random) -> None:
    examples = [*synthetic(12, 5).examples, one(1, 2, 3)]
    before = LengthData(examples).digest()
    shuffled = [replace(e, lengths=tuple(rng.sample(e.lengths, len(e.lengths)))) for e in examples]
    rng.shuffle(shuffled)
    assert LengthData(shuffled).digest() == before


def test_digest_sees_every_field() -> None:
    base = one(7)
    requests = [
        Request("other"), Request("hi", id="i"), Request("hi", client="c"), Request("hi", prompt_tokens=1),
        Request("hi", max_tokens=1), Request("hi", model="m"), Request("hi", arrival_s=1.0),
        *(Request("hi", history=history) for history in (
            History(turn=1), History(prompts=("x",)), History(lengths=(1,)), History(answer_tail="x"),
            History(tokens=1),
        )),
    ]  # fmt: skip
    examples = [
        base, *(replace(base, request=request) for request in requests), replace(base, lengths=(8,)),
        replace(base, lengths=(7, 7)),
        replace(base, group="h"), replace(base, source="s"), replace(base, cap=9),
    ]  # fmt: skip
    assert len({LengthData([example]).digest() for example in examples}) == len(examples)
    assert LengthData([base, base]).digest() != LengthData([base]).digest()
