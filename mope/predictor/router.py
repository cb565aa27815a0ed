"""The cheap router: hashed n-grams into class scores, which boosted trees read beside the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mope.errors import BundleError
from mope.predictor.features import NAMES, matrix
from mope.predictor.ngrams import bucket_ids, head, words
from mope.predictor.trees import Trees
from mope.types import BUCKETS, Request

TREES = "trees."
MAX_BITS = 20


@dataclass(frozen=True, eq=False)
class NgramScores:
    """A linear model of the words: `weights` [2**bits, 3] of hashed n-grams and a `bias` [3]."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        rows, classes = self.weights.shape if self.weights.ndim == 2 else (0, 0)
        if rows not in {1 << bits for bits in range(1, MAX_BITS + 1)} or classes != len(BUCKETS):
            raise _unfit(f"n-gram weights of shape {self.weights.shape}")
        if self.bias.shape != (classes,):
            raise _unfit(f"an n-gram bias of shape {self.bias.shape}")
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias).all()):
            raise _unfit("n-gram weights that are not finite")

    @property
    def bits(self) -> int:
        """Bits of an n-gram's hash that are kept."""
        return len(self.weights).bit_length() - 1

    def __call__(
        self, requests: Sequence[Request], tokens: Sequence[list[bytes]] | None = None
    ) -> NDArray[np.float32]:
        """Scores of the buckets, float32 [n, 3]: summed weights over the root of the n-grams' number."""
        if not requests:
            return np.zeros((0, len(BUCKETS)), dtype=np.float32)
        ids, starts = bucket_ids(requests, self.bits, tokens)
        # No request is without n-grams (`ngrams.hashes`), as reduceat needs.
        sums = np.add.reduceat(self.weights.take(ids, axis=0), starts[:-1], axis=0)
        sizes = np.sqrt(np.diff(starts)).astype(np.float32)
        return (sums / sizes[:, None] + self.bias).astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class LexicalRouter:
    """Probability of each bucket from features and n-grams, without a tokenizer, in microseconds.

    `trees` read the features of `mope.predictor.features`, then the scores of `ngrams`; their margins
    are calibrated by `scale` [1] (an inverse temperature) and `shift` [3] before the softmax.
    """

    ngrams: NgramScores
    trees: Trees
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]

    def __post_init__(self) -> None:
        wanted = len(NAMES) + len(BUCKETS)
        if self.trees.n_features != wanted or len(self.trees.baseline) != len(BUCKETS):
            raise _unfit(f"trees over {self.trees.n_features} features, not {wanted}")
        if self.scale.shape != (1,) or self.shift.shape != (len(BUCKETS),):
            raise _unfit(f"a calibration of shapes {self.scale.shape} and {self.shift.shape}")
        if not (np.isfinite(self.shift).all() and np.isfinite(self.scale).all() and self.scale[0] > 0):
            raise _unfit("a calibration that is no positive scale and finite shift")

    def probabilities(
        self, requests: Sequence[Request], features: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Calibrated probabilities in the order of `BUCKETS`, float32 [n, 3], each row summing to one.

        `features` is `features.matrix(requests)`, where it is at hand already; columns behind it are not read.
        """
        tokens = [words(head(request.prompt)) for request in requests]
        if features is None:
            features = matrix(requests, tokens)
        rows = np.concatenate([features[:, : len(NAMES)], self.ngrams(requests, tokens)], axis=1)
        margins = self.trees.margins(rows)
        return softmax(margins * self.scale + self.shift).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The whole router as named arrays, ready for safetensors."""
        own: dict[str, NDArray[np.generic]] = {
            "ngrams.weights": self.ngrams.weights,
            "ngrams.bias": self.ngrams.bias,
            "scale": self.scale,
            "shift": self.shift,
        }
        return own | self.trees.to_arrays(TREES)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> LexicalRouter:
        """What `to_arrays` wrote. Raises `BundleError` for arrays that are missing or do not fit together."""
        return cls(
            NgramScores(_floats(arrays, "ngrams.weights"), _floats(arrays, "ngrams.bias")),
            Trees.from_arrays(arrays, TREES),
            _floats(arrays, "scale"),
            _floats(arrays, "shift"),
        )


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities along the last axis; safe for large scores."""
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total: NDArray[np.float64] = shares / shares.sum(axis=-1, keepdims=True)
    return total


def _floats(arrays: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    if name not in arrays or arrays[name].dtype.kind != "f":
        raise _unfit(f"no floating-point array {name!r}")
    return arrays[name].astype(np.float32)


def _unfit(came: str) -> BundleError:
    return BundleError(f"a lexical router with {came}", "arrays written by this version", "train again")
