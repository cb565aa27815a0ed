"""Split-conformal calibration of the 80 % interval (Romano et al., conformalized quantile regression).

On held-out rows the score of a row is how far, in log1p(length), the truth lies outside the raw interval, counted
in both directions apart; each end is moved by its own quantile of the scores, per predicted bucket.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mope.errors import BundleError
from mope.types import BUCKETS

LOW, HIGH = 0.1, 0.9
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Per column ("hard", "soft", "proxy") the shifts of both ends, in log1p(length), for each predicted bucket."""

    shifts: dict[str, tuple[tuple[float, float], ...]]

    def interval(
        self,
        column: str,
        buckets: NDArray[np.int64],
        quantiles: FloatArray,
        levels: Sequence[float],
        more: Sequence[tuple[float, float]] | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Calibrated (low, high) in tokens from log quantiles [n, K] and predicted buckets [n].

        A column without shifts keeps its raw interval; `more` are further shifts for each bucket. The interval
        always holds the median.
        """
        low, high = self.ends(column, buckets, quantiles, levels)
        middle = quantiles[:, list(levels).index(0.5)]
        if more is not None:
            low, high = _moved(low, high, more, buckets)
        return _tokens(np.minimum(low, middle)), _tokens(np.maximum(high, middle))

    def ends(
        self, column: str, buckets: NDArray[np.int64], quantiles: FloatArray, levels: Sequence[float]
    ) -> tuple[FloatArray, FloatArray]:
        """Both ends in log1p(length), [n], before they are held to the median."""
        low, _, high = _ends(quantiles, levels)
        if column in self.shifts:
            low, high = _moved(low, high, self.shifts[column], buckets)
        return low, high

    def to_json(self) -> str:
        """The calibration.json text."""
        return json.dumps({"low": LOW, "high": HIGH, "shifts": self.shifts}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Read and check a calibration.json; raises `BundleError`."""
        try:
            shifts = json.loads(text)["shifts"]
            read = {str(k): tuple((float(a), float(b)) for a, b in rows) for k, rows in shifts.items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise BundleError("calibration.json cannot be read", "shifts per column and bucket") from None
        if any(len(rows) != len(BUCKETS) or not np.isfinite(rows).all() for rows in read.values()):
            raise BundleError(
                "calibration.json has shifts of another shape", f"{len(BUCKETS)} finite pairs a column"
            )
        return cls(read)


def calibrate(
    columns: Mapping[str, tuple[FloatArray, NDArray[np.int64]]],
    lengths: FloatArray,
    weights: FloatArray,
    levels: Sequence[float],
) -> Calibration:
    """Fit shifts from each column's (log quantiles [n, K], predicted buckets [n]) and the true lengths [n].

    `weights` [n] count a row; a prompt with k answers gives k rows of 1/k. A bucket without rows keeps its raw ends.
    """
    truth = np.log1p(lengths)
    shifts = {}
    for name, (quantiles, buckets) in columns.items():
        low, _, high = _ends(quantiles, levels)
        rows = []
        for bucket in range(len(BUCKETS)):
            here = buckets == bucket
            rows.append(
                (
                    -_conformal(low[here] - truth[here], weights[here], LOW),
                    _conformal(truth[here] - high[here], weights[here], 1 - HIGH),
                )
            )
        shifts[name] = tuple(rows)
    return Calibration(shifts)


def predicted_buckets(medians: FloatArray, bounds: tuple[float, float]) -> NDArray[np.int64]:
    """Bucket of each forecast median (log1p tokens [n])."""
    tokens = _tokens(medians)
    return (tokens > bounds[0]).astype(np.int64) + (tokens > bounds[1])


def _conformal(scores: FloatArray, weights: FloatArray, miss: float) -> float:
    """The score that a share of at most `miss` exceeds, with the finite-sample correction of one more row."""
    if not len(scores):
        return 0.0
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) / (weights.sum() + weights.max())
    place = int(np.searchsorted(reached, 1 - miss))
    return float(scores[order[min(place, len(scores) - 1)]])


def _moved(
    low: FloatArray, high: FloatArray, moves: Sequence[tuple[float, float]], buckets: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    by_row = np.array(moves)[buckets]
    return low + by_row[:, 0], high + by_row[:, 1]


def _ends(quantiles: FloatArray, levels: Sequence[float]) -> tuple[FloatArray, FloatArray, FloatArray]:
    low, middle, high = (quantiles[:, list(levels).index(level)] for level in (LOW, 0.5, HIGH))
    return low, middle, high


def _tokens(logs: FloatArray) -> FloatArray:
    out: FloatArray = np.maximum(np.expm1(np.minimum(logs, 20.0)), 0.0)
    return out
