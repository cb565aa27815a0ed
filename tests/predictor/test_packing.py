"""Packed arrays: every pair once, sorted by expert, and every index where it should point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.predictor.inputs import Inputs
from mope.predictor.packing import MIN_TOKENS, pack, portions, round_up

EXPERTS = 4


def inputs_of(lengths: list[int], text: list[int]) -> Inputs:
    """Texts whose token ids say where they stand: 100 * text + place."""
    ids = np.concatenate([100 * t + np.arange(n) for t, n in enumerate(lengths)]).astype(np.int32)
    rows = len(text)
    return Inputs(
        ids, np.zeros(len(ids), np.int8), np.cumsum([0, *lengths]), np.array(text),
        np.arange(rows, dtype=np.float32)[:, None], np.arange(rows),
    )  # fmt: skip


@st.composite
def batches(draw):
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))
    text = draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9))
    width = draw(st.integers(1, 3))
    wanted = draw(st.lists(
        st.lists(st.integers(0, EXPERTS - 1), min_size=width, max_size=width, unique=True),
        min_size=len(text), max_size=len(text),
    ))  # fmt: skip
    chosen = draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=len(text), unique=True))
    return inputs_of(lengths, text), np.array(sorted(chosen)), np.array(wanted)


@given(batches())
def test_each_row_reads_its_own_text_through_its_own_expert(batch):
    inputs, chosen, wanted = batch
    made = pack(inputs, chosen, wanted[chosen], EXPERTS)
    a = made.arrays
    assert a["whole"].tolist() == [0, len(a["ids"])]
    assert a["offsets"][0] == 0
    assert a["offsets"][-1] == len(a["rows"]) == a["tower_cu"][-1]
    pairs = set()
    for answer, (row, expert) in enumerate(
        (row, expert) for row, experts in zip(chosen, wanted[chosen], strict=True) for expert in experts
    ):
        text = inputs.text[row]
        tokens = inputs.ids[inputs.starts[text] : inputs.starts[text + 1]]
        sequence = a["sequence"][answer]
        span = slice(a["tower_cu"][sequence], a["tower_cu"][sequence + 1])
        assert a["ids"][a["rows"][span]].tolist() == tokens.tolist()
        assert a["places"][a["rows"][span]].tolist() == list(range(len(tokens)))
        assert a["expert"][answer] == expert
        assert a["offsets"][expert] <= span.start < span.stop <= a["offsets"][expert + 1]
        assert chosen[a["source"][answer]] == row
        assert a["features"][a["source"][answer]] == row
        pairs.add((int(text), int(expert)))
    assert len(a["tower_cu"]) - 1 == len(pairs)  # a text that several rows send to one expert goes once
    assert made.longest == max(inputs.sizes[inputs.text[chosen]])


@given(batches())
def test_the_bucket_has_room(batch):
    inputs, chosen, wanted = batch
    made = pack(inputs, chosen, wanted[chosen], EXPERTS)
    size, n = made.size, {name: len(array) for name, array in made.arrays.items()}
    assert size.tokens >= n["ids"]
    assert size.tower_tokens >= max(n["rows"], inputs.sizes[inputs.text[chosen]].sum())
    assert size.towers >= n["tower_cu"] - 1
    assert size.texts >= n["cu"] - 1
    assert size.answers >= n["sequence"]
    assert size.batch >= len(chosen)
    assert size.longest >= made.longest


@pytest.mark.parametrize(
    ("n", "rounded"), [(0, 64), (1, 64), (64, 64), (65, 96), (97, 128), (129, 192), (200, 256)]
)
def test_round_up(n, rounded):
    assert round_up(n, MIN_TOKENS) == rounded


@given(st.integers(1, 10**6))
def test_no_bucket_is_more_than_half_as_large_again(n):
    assert n <= round_up(n, 1) < 1.5 * n + 1


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200), st.integers(1, 10))
def test_portions_hold_every_row_once_in_order(lengths, tokens, rows):
    inputs = inputs_of(lengths, list(range(len(lengths)))) if lengths else inputs_of([1], [])
    found = portions(inputs, tokens, rows)
    assert [row for part in found for row in part] == list(range(len(lengths)))
    assert all(0 < len(part) <= rows for part in found)
    assert all(inputs.sizes[part].sum() < tokens + 50 for part in found)
