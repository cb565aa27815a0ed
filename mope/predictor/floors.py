"""What any model must beat: a constant, and boosted trees on features with and without the conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mope.errors import BundleError
from mope.predictor.features import NAMES, SURFACE, matrix
from mope.predictor.trees import Trees
from mope.types import BUCKETS, Request

# Features are ordered so that what the prompt alone tells comes first.
COLUMNS = {"surface": len(SURFACE), "context": len(NAMES)}
FLOORS = ("constant", *COLUMNS)


@dataclass(frozen=True, eq=False)
class Floor:
    """Trees for the length (of log1p(length) where `log` is set) and for the bucket, on the same features."""

    length: Trees
    bucket: Trees
    log: bool

    def tokens(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Predicted lengths in tokens, float64 [n], never negative."""
        raw = self.length.margins(rows)[:, 0]
        # exp of 20 is longer than any answer: a damaged tree cannot make an infinite forecast.
        return np.maximum(np.expm1(np.minimum(raw, 20.0)) if self.log else raw, 0.0)

    def buckets(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """Most probable bucket of each row, int64 [n]."""
        best: NDArray[np.int64] = self.bucket.margins(rows).argmax(axis=1).astype(np.int64)
        return best


@dataclass(frozen=True, eq=False)
class Floors:
    """The floors by name: "constant" (the training median), "surface" and "context"."""

    constant: float
    constant_bucket: int
    surface: Floor
    context: Floor

    def __post_init__(self) -> None:
        if not (0 <= self.constant < float("inf")) or self.constant_bucket not in range(len(BUCKETS)):
            raise _unfit(f"the constant {self.constant} in bucket {self.constant_bucket}")
        for name, columns in COLUMNS.items():
            floor = self._floor(name)
            if not floor.length.n_features == floor.bucket.n_features == columns:
                raise _unfit(f"{name} trees that read other than {columns} features")
            if len(floor.length.baseline) != 1 or len(floor.bucket.baseline) != len(BUCKETS):
                raise _unfit(f"{name} trees with another number of outputs")

    def predict(
        self, requests: Sequence[Request], features: NDArray[np.float32] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Output tokens of each request under each floor, float64 [n]."""
        rows = matrix(requests) if features is None else features
        lengths = {name: self._floor(name).tokens(rows[:, :n]) for name, n in COLUMNS.items()}
        return {"constant": np.full(len(rows), self.constant), **lengths}

    def buckets(
        self, requests: Sequence[Request], features: NDArray[np.float32] | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """Bucket of each request under each floor, int64 [n]."""
        rows = matrix(requests) if features is None else features
        chosen = {name: self._floor(name).buckets(rows[:, :n]) for name, n in COLUMNS.items()}
        return {"constant": np.full(len(rows), self.constant_bucket, dtype=np.int64), **chosen}

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """All floors as named arrays, ready for safetensors."""
        arrays: dict[str, NDArray[np.generic]] = {
            "constant": np.array([self.constant, self.constant_bucket], dtype=np.float64)
        }
        for name in COLUMNS:
            floor = self._floor(name)
            arrays |= floor.length.to_arrays(f"{name}.length.") | floor.bucket.to_arrays(f"{name}.bucket.")
            arrays[f"{name}.log"] = np.array([floor.log])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Floors:
        """What `to_arrays` wrote. Raises `BundleError` for arrays that are missing or do not fit together."""
        constant = _named(arrays, "constant", "f", 2).astype(np.float64)
        if constant[1] not in range(len(BUCKETS)):
            raise _unfit(f"constant bucket {constant[1]}")
        floors = {
            name: Floor(
                Trees.from_arrays(arrays, f"{name}.length."),
                Trees.from_arrays(arrays, f"{name}.bucket."),
                bool(_named(arrays, f"{name}.log", "b", 1)[0]),
            )
            for name in COLUMNS
        }
        return cls(float(constant[0]), int(constant[1]), floors["surface"], floors["context"])

    def _floor(self, name: str) -> Floor:
        return {"surface": self.surface, "context": self.context}[name]


def _named(arrays: Mapping[str, NDArray[np.generic]], name: str, kind: str, size: int) -> NDArray[np.generic]:
    if name not in arrays or arrays[name].dtype.kind != kind or arrays[name].shape != (size,):
        raise _unfit(f"no array {name!r} of {size}")
    return arrays[name]


def _unfit(came: str) -> BundleError:
    return BundleError(f"floors with {came}", "arrays written by this version", "train again")
