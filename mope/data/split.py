"""Where data is cut: into parts by conversation, into buckets by length."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mope.data.records import LengthData
from mope.errors import ConfigError, DataError
from mope.types import BUCKETS

PARTS = ("train", "validation", "calibration", "test")
# Upper ends of the parts in hundredths: 70 / 10 / 10 / 10.
_ENDS = (70, 80, 90, 100)


def part_of(group: str) -> str:
    """The part of `PARTS` that a conversation falls into, by its name alone: new rows move nobody."""
    digest = hashlib.sha256(group.encode("utf-8", "replace")).digest()
    share = int.from_bytes(digest[:8], "big") * 100 >> 64
    return next(part for part, end in zip(PARTS, _ENDS, strict=True) if share < end)


def split(data: LengthData) -> dict[str, NDArray[np.int64]]:
    """Indices of the examples in each part, ascending; no group stands in two parts."""
    known = {group: part_of(group) for group in set(data.groups)}
    parts = np.array([PARTS.index(known[group]) for group in data.groups], dtype=np.int64)
    return {part: np.flatnonzero(parts == i).astype(np.int64) for i, part in enumerate(PARTS)}


@dataclass(frozen=True)
class Bounds:
    """Lengths in tokens that end the short and the medium bucket, and the cap on training targets."""

    short: float
    medium: float
    cap: float
    percentiles: tuple[float, float, float] = (33, 66, 99)

    def __post_init__(self) -> None:
        object.__setattr__(self, "percentiles", _checked(self.percentiles))
        if not 0 <= self.short < self.medium <= self.cap < float("inf"):
            raise DataError(
                f"bounds short {self.short:g}, medium {self.medium:g}, cap {self.cap:g}",
                "0 <= short < medium <= cap",
            )

    @classmethod
    def fit(cls, lengths: ArrayLike, percentiles: Sequence[float] = (33, 66, 99)) -> Bounds:
        """Bounds at these percentiles of the training lengths.

        Raises `DataError` where some bucket would be empty, `ConfigError` for percentiles out of order.
        """
        levels = _checked(percentiles)
        values = np.asarray(lengths, dtype=np.float64)
        if not values.size or not np.isfinite(values).all() or values.min() < 0:
            raise DataError(f"{values.size} lengths", "finite lengths, none negative, at least one")
        if values.min() == values.max():
            raise DataError(
                f"one-class data: all {values.size} lengths are {values.min():g}",
                "lengths that differ",
                "check the length column; one that never varies needs no predictor",
            )
        short, medium, cap = (float(value) for value in np.percentile(values, levels))
        _no_empty_bucket(_cut(values, short, medium), levels)
        return cls(short, medium, cap, levels)

    def bucket(self, lengths: ArrayLike) -> NDArray[np.int64]:
        """Index into `BUCKETS` of each length, int64 of the same shape: 0 up to `short`, 1 up to `medium`."""
        return _cut(np.asarray(lengths, dtype=np.float64), self.short, self.medium)


def _cut(values: NDArray[np.float64], short: float, medium: float) -> NDArray[np.int64]:
    return (values > short).astype(np.int64) + (values > medium)


def _checked(percentiles: Sequence[float]) -> tuple[float, float, float]:
    levels = tuple(percentiles)
    if len(levels) != 3 or not 0 < levels[0] < levels[1] < levels[2] <= 100:
        raise ConfigError(
            f"percentiles {levels}", "three increasing numbers above 0, at most 100, such as 33, 66, 99"
        )
    return levels[0], levels[1], levels[2]


def _no_empty_bucket(buckets: NDArray[np.int64], levels: tuple[float, float, float]) -> None:
    counts = np.bincount(buckets.ravel(), minlength=len(BUCKETS))
    empty = [name for name, count in zip(BUCKETS, counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"an empty bucket ({', '.join(empty)}) at percentiles {levels[0]:g} and {levels[1]:g}",
            "examples in every bucket",
            "choose other percentiles or give more data: too many lengths are equal",
        )
