"""Totals of many forecasts, whose errors cancel, but only in part.

Each request's length is drawn from its forecast. The normal score of a draw is the sum of three parts: one that
the whole file shares (the bundle is too high or too low as a whole), one that a conversation shares, and one of
its own (a one-factor Gaussian copula with groups). Each forecast stays what it is; only sums get wider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mope.errors import ConfigError
from mope.types import LengthForecast, Request, Span

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LOW, HIGH = 0.1, 0.9
CELLS = 2_000_000  # draws held at a time: 16 MB an array
FARTHEST = 3.5  # normal scores beyond this are one in 4,000, and what quantiles say of them is guessed
STRETCH = (0.25, 4.0)  # how far calibration may pull the quantiles of one side together or apart
NARROW = 0.02  # log tokens; a side of the forecast narrower than that is not stretched by its own width


@dataclass(frozen=True, slots=True)
class Shared:
    """Which share of a forecast's squared error (as a normal score) the whole file and a conversation share.

    Chosen on the calibration part of ShareGPT by `scripts/cost_coverage.py`; see docs/cost.md.
    """

    file: float = 0.0001
    conversation: float = 0.05

    def __post_init__(self) -> None:
        if not (self.file >= 0 and self.conversation >= 0 and self.file + self.conversation <= 1):
            raise ConfigError(
                f"shared errors of {self.file} (file) and {self.conversation} (conversation)",
                "two shares from 0, together at most 1",
            )


DEFAULT = Shared()


@dataclass(frozen=True, eq=False)
class Curves:
    """A quantity of n requests as a function of the normal score: straight between forecast quantiles.

    `scores` [K] are the quantiles' levels as normal scores; `offset` and `slope` [n, K + 1] the lines of the parts
    that they cut the axis into, the outer ones as steep as the two parts beside them together. `most` [n] bounds.
    """

    scores: FloatArray
    offset: FloatArray
    slope: FloatArray
    most: FloatArray
    logs: bool = True

    @classmethod
    def of(
        cls, levels: Sequence[float], values: FloatArray, most: FloatArray | None = None, logs: bool = True
    ) -> Curves:
        """From values [n, K] at K >= 2 probabilities; `logs` says that they are log1p of the quantity."""
        scores = np.array([NormalDist().inv_cdf(level) for level in levels])
        rising = np.maximum.accumulate(values, axis=1)
        inner = np.diff(rising, axis=1) / np.diff(scores)
        reach = min(2, len(levels) - 1)
        left = (rising[:, [reach]] - rising[:, [0]]) / (scores[reach] - scores[0])
        right = (rising[:, [-1]] - rising[:, [-1 - reach]]) / (scores[-1] - scores[-1 - reach])
        slope = np.concatenate([left, inner, right], axis=1)
        offset = np.concatenate([rising, rising[:, [-1]]], axis=1) - slope * np.append(scores, scores[-1])
        return cls(scores, offset, slope, np.full(len(values), np.inf) if most is None else most, logs)

    def at(self, scores: FloatArray, rows: IntArray) -> FloatArray:
        """The quantity of `rows` [m] at normal scores [m, D]."""
        place = np.searchsorted(self.scores, scores)
        cell = place + (rows * self.slope.shape[1])[:, None]
        found = self.offset.ravel()[cell] + self.slope.ravel()[cell] * scores
        if self.logs:
            found = np.expm1(np.minimum(found, 20.0))
        out: FloatArray = np.clip(found, 0.0, self.most[rows][:, None])
        return out


def length_curves(forecasts: Sequence[LengthForecast], requests: Sequence[Request] | None = None) -> Curves:
    """Output tokens as curves: quantiles stretched to meet the calibrated ends, cut at each request's max_tokens.

    All forecasts must have the levels of the first, among them 0.1, 0.5 and 0.9.
    """
    most = None if requests is None else limits(requests)
    return Curves.of(forecasts[0].levels, length_logs(forecasts), most)


def limits(requests: Sequence[Request]) -> FloatArray:
    """The max_tokens of each request [n]; infinite where there is none."""
    return np.array([np.inf if r.max_tokens is None else r.max_tokens for r in requests], dtype=np.float64)


def length_logs(forecasts: Sequence[LengthForecast]) -> FloatArray:
    """Calibrated quantiles of log1p(output tokens), [n, K]."""
    logs = np.log1p(np.array([f.quantiles for f in forecasts], dtype=np.float64))
    low, high = (np.log1p(np.array([getattr(f, end) for f in forecasts])) for end in ("low", "high"))
    return stretched(forecasts[0].levels, logs, low, high)


def stretched(levels: Sequence[float], logs: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Log quantiles [n, K], each side of the median scaled so that levels 0.1 and 0.9 meet `low` and `high` [n]."""
    first, middle, last = (list(levels).index(level) for level in (LOW, 0.5, HIGH))
    median = logs[:, middle]
    down = (median - low) / np.maximum(median - logs[:, first], NARROW)
    up = (high - median) / np.maximum(logs[:, last] - median, NARROW)
    scale = np.where(np.arange(len(levels)) < middle, *(np.clip(s, *STRETCH)[:, None] for s in (down, up)))
    out: FloatArray = median[:, None] + (logs - median[:, None]) * scale
    return out


def totals(
    curves: Mapping[str, Curves], groups: IntArray, draws: int = 2000, seed: int = 0, shared: Shared = DEFAULT
) -> dict[str, FloatArray]:
    """Sums over all requests of each quantity, [draws]; what one draw says of several quantities belongs together.

    `groups` [n] number the conversations.
    """
    random = np.random.default_rng(seed)
    whole = random.standard_normal(draws) * np.sqrt(shared.file)
    alone = np.sqrt(1 - shared.file - shared.conversation)
    sums = {name: np.zeros(draws) for name in curves}
    for rows in _chunks(groups, max(1, CELLS // draws)):
        _, place = np.unique(groups[rows], return_inverse=True)
        common = random.standard_normal((int(place.max()) + 1, draws)) * np.sqrt(shared.conversation) + whole
        scores = random.standard_normal((len(rows), draws)) * alone + common[place]
        np.clip(scores, -FARTHEST, FARTHEST, out=scores)
        for name, curve in curves.items():
            sums[name] += curve.at(scores, rows).sum(axis=0)
    return sums


def _chunks(groups: IntArray, size: int) -> Iterator[IntArray]:
    """Rows in pieces of about `size` that tear no group apart."""
    order = np.argsort(groups, kind="stable").astype(np.int64)
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    begin = 0
    while begin < len(order):
        later = starts[starts >= begin + size]
        end = int(later[0]) if len(later) else len(order)
        yield order[begin:end]
        begin = end


def span(draws: FloatArray) -> Span:
    """Median of draws and the ends of their middle 80 %."""
    low, value, high = np.quantile(draws, [LOW, 0.5, HIGH])
    return Span(float(value), float(low), float(high))
