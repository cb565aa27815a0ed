"""Batches depend on the seed and their number alone, and every pass reads every text once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mope.predictor.inputs import Inputs
from mope.training.feed import Feed, Part
from mope.training.recipe import OptimConfig


def part(text_of_row: list[int], sizes: list[int]) -> Part:
    """Rows that read the given texts; text t has sizes[t] tokens, all equal to t + 1."""
    n = len(text_of_row)
    inputs = Inputs(
        ids=np.repeat(np.arange(1, len(sizes) + 1), sizes).astype(np.int32),
        segments=np.zeros(sum(sizes), np.int8),
        starts=np.cumsum([0, *sizes]),
        text=np.array(text_of_row, np.int64),
        features=np.zeros((n, 2), np.float32),
        model=np.zeros(n, np.int64),
    )
    ones = np.ones((n, 1), np.float32)
    return Part(inputs, ones * 5, ones, np.full((n, 3), 1 / 3, np.float32))


@st.composite
def feeds(draw: st.DrawFn) -> Feed:
    texts = draw(st.integers(1, 160))  # batches of one make several blocks of them
    extra = draw(st.lists(st.integers(0, texts - 1), max_size=40))
    sizes = np.random.default_rng(draw(st.integers(0, 9))).integers(1, 10, texts).tolist()
    optim = OptimConfig(batch=draw(st.integers(1, 7)), rows_per_text=draw(st.integers(1, 3)))
    return Feed(part([*range(texts), *extra], sizes), optim, draw(st.integers(0, 5)), epochs=2.0)


@given(feeds(), st.integers(0, 10_000))
def test_a_batch_depends_on_seed_and_number_alone(feed: Feed, place: int):
    step = place % feed.steps
    fresh = Feed(feed.part, feed.optim, feed.seed, feed.epochs)
    for other in (0, feed.steps - 1):
        feed.batch(other)
    assert feed.batch(step).tolist() == fresh.batch(step).tolist()


@given(feeds())
def test_a_pass_reads_every_text_once_with_a_bounded_number_of_rows(feed: Feed):
    assert feed.steps == 2 * feed.per_pass
    for number in range(2):
        batches = [feed.batch(number * feed.per_pass + i) for i in range(feed.per_pass)]
        texts = [np.unique(feed.part.inputs.text[rows]) for rows in batches]
        assert max(map(len, texts)) <= feed.optim.batch
        assert sorted(np.concatenate(texts)) == list(range(len(feed.part.inputs.sizes)))
        rows = np.concatenate(batches)
        assert len(set(rows.tolist())) == len(rows)
        assert np.bincount(feed.part.inputs.text[rows]).max() <= feed.optim.rows_per_text


def test_a_batch_holds_texts_of_like_size():
    sizes = np.random.default_rng(0).permutation(np.arange(1, 257)).tolist()
    feed = Feed(part([*range(256)], sizes), OptimConfig(batch=16), 0)
    spans = [np.ptp(feed.part.inputs.sizes[feed.batch(step)]) for step in range(feed.per_pass)]
    assert max(spans) == 15
    assert feed.batch(0).tolist() != Feed(feed.part, feed.optim, 1).batch(0).tolist()


def test_rows_without_weight_are_not_drawn():
    weights = np.array([1, 0, 1], np.float32)
    feed = Feed(part([0, 1, 2], [2, 2, 2]), OptimConfig(batch=8), 0, 1.0, weights)
    assert sorted(feed.batch(0)) == [0, 2]


def test_tensors_pad_and_share_texts():
    feed = Feed(part([0, 1, 1], [1, 3]), OptimConfig(batch=8), 0)
    batch = feed.tensors(np.array([1, 0, 2]))
    assert batch["x"].tolist() == [[1, 0, 0], [2, 2, 2]]
    assert batch["mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch["text"].tolist() == [1, 0, 1]
