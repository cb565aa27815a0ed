import numpy as np
import pytest

from mope.errors import BundleError
from mope.predictor.features import NAMES, matrix
from mope.predictor.ngrams import bucket_ids
from mope.predictor.router import LexicalRouter, NgramScores
from mope.predictor.trees import Trees
from mope.types import Request

BITS = 10


def stump(feature: int, threshold: float) -> Trees:
    """Adds 2 to the margin of "long" where the feature is above the threshold."""
    return Trees(
        feature=np.array([feature, 0, 0], dtype=np.int32),
        threshold=np.array([threshold, 0, 0], dtype=np.float32),
        left=np.array([1, 1, 2], dtype=np.int32),
        right=np.array([2, 1, 2], dtype=np.int32),
        missing_left=np.zeros(3, dtype=bool),
        value=np.array([0.0, 0.0, 2.0]),
        roots=np.zeros(1, dtype=np.int32),
        classes=np.array([2], dtype=np.int32),
        baseline=np.zeros(3),
        columns=np.array([len(NAMES) + 3], dtype=np.int32),
    )


def made(trees: Trees, scale: float = 1.0, shift: tuple[float, ...] = (0, 0, 0)) -> LexicalRouter:
    weights = np.zeros((1 << BITS, 3), dtype=np.float32)
    for i in bucket_ids([Request("essay")], BITS)[0]:
        weights[i, 2] = 3.0
    return LexicalRouter(
        NgramScores(weights, np.array([0, 0, 0.25], dtype=np.float32)),
        trees,
        np.array([scale], dtype=np.float32),
        np.array(shift, dtype=np.float32),
    )


def softmax(*scores: float) -> list[float]:
    return (np.exp(scores) / np.exp(scores).sum()).tolist()


def test_ngram_scores_are_sums_over_the_root_of_their_number():
    scores = made(stump(0, 0)).ngrams([Request("essay"), Request("zebra")])
    # "essay" has two n-grams: the word, and the word as the first one.
    assert scores[0].tolist() == pytest.approx([0, 0, 6 / np.sqrt(2) + 0.25])
    assert scores[1].tolist() == [0, 0, 0.25]


def test_trees_read_features_then_ngram_scores():
    requests = [Request("essay"), Request("zebra zebra")]
    by_words = made(stump(len(NAMES) + 2, 1.0)).probabilities(requests)
    assert by_words[0].tolist() == pytest.approx(softmax(0, 0, 2))
    assert by_words[1].tolist() == pytest.approx(softmax(0, 0, 0))
    by_size = made(stump(NAMES.index("chars"), 5.0)).probabilities(requests)
    assert by_size[:, 2].tolist() == pytest.approx([softmax(0, 0, 0)[2], softmax(0, 0, 2)[2]])
    assert by_size.dtype == np.float32


def test_calibration_scales_then_shifts():
    got = made(stump(0, 0), scale=0.5, shift=(0.3, 0, 0)).probabilities([Request("hi")])
    assert got[0].tolist() == pytest.approx(softmax(0.3, 0, 1))


def test_given_features_are_used():
    router, requests = made(stump(0, 5.0)), [Request("longer than five")]
    features = matrix(requests)
    assert router.probabilities(requests, features)[0, 2] == pytest.approx(softmax(0, 0, 2)[2])
    features[0, 0] = 1
    assert router.probabilities(requests, features)[0, 2] == pytest.approx(1 / 3)


def test_odd_batches():
    router = made(stump(0, 0))
    assert router.probabilities([]).shape == (0, 3)
    odd = [Request(""), Request("\ud800?"), Request("x" * 100_000)]
    together = router.probabilities(odd)
    assert together.sum(axis=1).tolist() == pytest.approx([1, 1, 1])
    assert [router.probabilities([r])[0].tolist() for r in odd] == together.tolist()


def test_arrays_come_back():
    router, requests = made(stump(0, 3), 2.0, (0.1, 0.2, 0.3)), [Request("essay"), Request("no")]
    again = LexicalRouter.from_arrays(router.to_arrays())
    assert again.probabilities(requests).tolist() == router.probabilities(requests).tolist()


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("ngrams.weights", np.zeros((1000, 3), np.float32)),
        ("ngrams.weights", np.zeros((1024, 2), np.float32)),
        ("ngrams.weights", np.full((1024, 3), np.nan, np.float32)),
        ("ngrams.bias", np.zeros(2, np.float32)),
        ("scale", np.zeros(1, np.float32)),
        ("scale", np.ones(1, np.int64)),
        ("shift", np.full(3, np.inf, np.float32)),
        ("trees.columns", np.array([500], np.int32)),
        ("trees.baseline", np.zeros(4)),
    ],
)
def test_foreign_arrays_are_refused(name, array):
    arrays = made(stump(0, 3)).to_arrays()
    arrays[name] = array
    with pytest.raises(BundleError):
        LexicalRouter.from_arrays(arrays)
    del arrays[name]
    with pytest.raises(BundleError):
        LexicalRouter.from_arrays(arrays)
