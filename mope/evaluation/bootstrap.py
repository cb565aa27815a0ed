"""Intervals and tests that respect groups: whole conversations are drawn, never single rows.

Statistics made of sums are resampled from each group's sums, so 1000 resamples cost one matrix
product. Rank statistics use the infinitesimal jackknife: their derivative to each group's weight
gives the variance that the bootstrap converges to, without counting pairs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mope.evaluation.metrics import sorted_median, weighted_median

FloatArray = NDArray[np.float64]

LEVEL = 0.95
NORMAL_95 = 1.959964
CHUNK_CELLS = 4_000_000  # 32 MB of resample counts at a time


@dataclass(frozen=True, slots=True)
class Draws:
    """How resamples are drawn: the same draws give the same resamples."""

    n_boot: int = 1000
    seed: int = 0


DEFAULT = Draws()


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the ends of its 95 % interval; the ends are NaN where there are fewer than two groups."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of (first - second) over rows, its 95 % interval, and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Groups:
    """Which group each row belongs to: `codes` [n] in 0..count-1."""

    codes: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, labels: Sequence[str] | NDArray[np.generic]) -> Groups:
        """Groups of rows by their labels; the order of rows does not change the numbering of groups."""
        names, codes = np.unique(np.asarray(labels), return_inverse=True)
        return cls(codes.astype(np.int64), len(names))

    def take(self, rows: NDArray[np.bool_]) -> Groups:
        """The groups of the chosen rows; a group without a chosen row is gone."""
        return Groups.of(self.codes[rows])

    def sums(self, *columns: FloatArray) -> FloatArray:
        """Each column [n] summed by group: [count, columns]."""
        return np.stack([np.bincount(self.codes, column, self.count) for column in columns], axis=1)


def interval(
    statistic: Callable[[FloatArray], FloatArray], sums: FloatArray, draws: Draws = DEFAULT
) -> Interval:
    """Percentile bootstrap interval of a statistic of column sums.

    `sums` [G, S] holds each group's sums; `statistic` takes sums [..., S] to values [...].
    """
    value = float(statistic(sums.sum(axis=0)))
    if len(sums) < 2:
        return Interval(value, np.nan, np.nan)
    return _percentile(value, statistic(resample(sums, draws)))


def mean_intervals(
    columns: Mapping[str, FloatArray], weights: FloatArray, groups: Groups, draws: Draws = DEFAULT
) -> dict[str, Interval]:
    """The weighted mean of each column [n] with its interval; all columns share the same resamples."""
    if not columns:
        return {}
    sums = groups.sums(weights, *(values * weights for values in columns.values()))
    values = _means(sums.sum(axis=0))
    if groups.count < 2:
        return {name: Interval(float(v), np.nan, np.nan) for name, v in zip(columns, values, strict=True)}
    drawn = _means(resample(sums, draws))
    return {name: _percentile(float(values[i]), drawn[:, i]) for i, name in enumerate(columns)}


def median_interval(
    values: FloatArray, weights: FloatArray, groups: Groups, draws: Draws = DEFAULT
) -> Interval:
    """The weighted median of values [n] with its percentile bootstrap interval."""
    value = weighted_median(values, weights)
    if groups.count < 2:
        return Interval(value, np.nan, np.nan)
    order = np.argsort(values, kind="stable")
    ordered, shares, codes = values[order], weights[order], groups.codes[order]
    drawn = [
        sorted_median(ordered, shares * counts[codes])
        for chunk in _counts(groups.count, draws)
        for counts in chunk
    ]
    return _percentile(value, np.asarray(drawn))


def slope_interval(value: float, slope: FloatArray, groups: Groups, low: float, high: float) -> Interval:
    """Interval of a statistic from its derivative to each row's weight [n], kept inside low..high.

    The standard error is sqrt(G / (G - 1) * sum of squared group derivatives), the infinitesimal
    jackknife over groups; the interval is value -+ 1.96 of it.
    """
    if groups.count < 2:
        return Interval(value, np.nan, np.nan)
    by_group = groups.sums(slope)[:, 0]
    reach = NORMAL_95 * np.sqrt(groups.count / (groups.count - 1) * np.square(by_group).sum())
    return Interval(value, float(np.maximum(value - reach, low)), float(np.minimum(value + reach, high)))


def paired_difference(
    first: FloatArray,
    second: FloatArray,
    weights: FloatArray,
    groups: Groups,
    draws: Draws = DEFAULT,
) -> Difference:
    """Paired bootstrap of mean(first - second), both errors [n] on the same rows: below 0 favours the first.

    p is twice the smaller share of resamples on either side of 0, with one added to count and total,
    so it is never below 2 / (n_boot + 1).
    """
    sums = groups.sums(weights, (first - second) * weights)
    value = float(_means(sums.sum(axis=0))[0])
    if groups.count < 2:
        return Difference(value, np.nan, np.nan, 1.0)
    drawn = _means(resample(sums, draws))[:, 0]
    side = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    ends = _percentile(value, drawn)
    return Difference(value, ends.low, ends.high, min(1.0, 2 * (side + 1) / (draws.n_boot + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values for several comparisons, in the order they came."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def resample(sums: FloatArray, draws: Draws = DEFAULT) -> FloatArray:
    """Sums [n_boot, S] of resamples of as many groups as there are, from each group's sums [G, S]."""
    return np.concatenate([counts @ sums for counts in _counts(len(sums), draws)])


def _counts(groups: int, draws: Draws) -> Iterator[FloatArray]:
    """How often each group was drawn, multinomial, in chunks [c, G] of n_boot rows in all."""
    rng = np.random.default_rng(draws.seed)
    size = max(1, CHUNK_CELLS // groups)
    for start in range(0, draws.n_boot, size):
        rows = range(min(size, draws.n_boot - start))
        # drawing with replacement and counting is 8 times faster than rng.multinomial at 10^5 groups
        counts = [np.bincount(rng.integers(groups, size=groups), minlength=groups) for _ in rows]
        yield np.asarray(counts, np.float64)


def _means(sums: FloatArray) -> FloatArray:
    """Sums of weight and of weighted columns [..., 1 + S] to means [..., S]."""
    return np.asarray(sums[..., 1:] / sums[..., :1])


def _percentile(value: float, drawn: FloatArray) -> Interval:
    if np.isnan(value):
        return Interval(value, np.nan, np.nan)
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
