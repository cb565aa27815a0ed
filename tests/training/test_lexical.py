import numpy as np
import pytest

from mope.data.records import Example, LengthData
from mope.data.split import Bounds, split
from mope.data.synthetic import synthetic
from mope.training.lexical import _foreign_scores, bucket_shares, fit_ngrams, fit_router
from mope.types import Request

BOUNDS = Bounds(short=10, medium=100, cap=1000)


@pytest.fixture(scope="module")
def parts() -> dict[str, LengthData]:
    data = synthetic(1500, seed=1)
    return {name: data.take(rows) for name, rows in split(data).items()}


@pytest.fixture(scope="module")
def bounds(parts) -> Bounds:
    return Bounds.fit(parts["train"].lengths)


@pytest.fixture(scope="module")
def router(parts, bounds):
    return fit_router(parts["train"], parts["validation"], bounds, seed=0)


def test_several_answers_are_shares_of_one_example():
    data = LengthData([Example(Request("a"), (5, 10, 11, 5000), "g"), Example(Request("b"), (7,), "h")])
    assert bucket_shares(data, BOUNDS).tolist() == [[0.5, 0.25, 0.25], [1, 0, 0]]


def test_router_learns_made_up_chats(router, parts, bounds):
    test = parts["test"]
    chances = router.probabilities(test.requests)
    truth = bounds.bucket(test.lengths)
    assert (chances.argmax(axis=1) == truth).mean() > 0.75
    assert chances.sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_probabilities_are_calibrated(router, parts, bounds):
    chances = router.probabilities(parts["test"].requests)
    hits = chances.argmax(axis=1) == bounds.bucket(parts["test"].lengths)
    assert chances.max(axis=1).mean() == pytest.approx(hits.mean(), abs=0.1)


def test_the_same_seed_fits_the_same_router(router, parts, bounds):
    again = fit_router(parts["train"], parts["validation"], bounds, seed=0).to_arrays()
    assert all(np.array_equal(again[name], array) for name, array in router.to_arrays().items())


def test_fits_of_ngrams_name_the_bucket_of_a_word():
    requests = [Request("tiny"), Request("middling"), Request("huge")] * 30
    model = fit_ngrams(requests, np.tile(np.eye(3), (30, 1)))
    assert model(requests[:3]).argmax(axis=1).tolist() == [0, 1, 2]


def test_scores_for_the_trees_know_nothing_of_their_own_conversation():
    requests = [Request(f"word{i // 2} word{i // 2}") for i in range(200)]
    shares = np.eye(3)[np.random.default_rng(0).integers(0, 3, 100).repeat(2)]
    scores = _foreign_scores(requests, shares, np.arange(200) // 2 % 5)
    seen = fit_ngrams(requests, shares)(requests)
    truth = shares.argmax(axis=1)
    assert (seen.argmax(axis=1) == truth).mean() > 0.9
    assert (scores.argmax(axis=1) == truth).mean() < 0.5


def test_one_group_and_no_validation_still_give_a_router():
    data = LengthData([Example(Request(f"word {i}"), (i * 20,), "only") for i in range(12)])
    router = fit_router(data, LengthData([]), BOUNDS, seed=0)
    assert router.scale.tolist() == [1]
    assert np.isfinite(router.probabilities(data.requests)).all()
