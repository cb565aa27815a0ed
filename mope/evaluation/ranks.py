"""How well a forecast orders requests: statistics over all pairs, in O(n log n).

Every pair (i, j) weighs `weights[i] * weights[j]`. Both statistics are ratios of three sums over
pairs, so the derivative of each to the weight of a row is exact and cheap; `mope.evaluation.bootstrap` makes
an interval of it without drawing pairs again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairSums:
    """For each row the weight of its partners; every array is [n] and already times the row's weight.

    `score` sums sign(truth_i - truth_j) * sign(forecast_i - forecast_j); `truth` and `forecast` sum
    the partners whose truth, respectively forecast, differs.
    """

    score: FloatArray
    truth: FloatArray
    forecast: FloatArray

    def tau_b(self) -> tuple[float, FloatArray]:
        """Kendall's tau-b and its derivative to each row's weight [n]; NaN where one side never differs."""
        score, truth, forecast = self.score.sum(), self.truth.sum(), self.forecast.sum()
        if truth == 0 or forecast == 0:
            return float("nan"), np.zeros_like(self.score)
        value = score / np.sqrt(truth) / np.sqrt(forecast)
        slope = 2 * self.score / np.sqrt(truth) / np.sqrt(forecast)
        return float(value), slope - value * (self.truth / truth + self.forecast / forecast)

    def order_accuracy(self) -> tuple[float, FloatArray]:
        """Share of pairs of different truth in the right order, and its derivative [n]; NaN without any."""
        score, truth = self.score.sum(), self.truth.sum()
        if truth == 0:
            return float("nan"), np.zeros_like(self.score)
        return float((1 + score / truth) / 2), (self.score - score / truth * self.truth) / truth


def pair_sums(truth: ArrayLike, forecast: ArrayLike, weights: ArrayLike | None = None) -> PairSums:
    """The sums over pairs behind both rank statistics; all inputs are [n], weights default to 1."""
    true_rank, rank = _ranks(truth), _ranks(forecast)
    w = np.ones(len(rank)) if weights is None else np.asarray(weights, np.float64)
    return PairSums(
        score=w * _scores(rank, true_rank, w),
        truth=w * _others(true_rank, w),
        forecast=w * _others(rank, w),
    )


def kendall_tau_b(truth: ArrayLike, forecast: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Kendall's tau-b of two [n] arrays in -1..1; NaN where one of them never differs."""
    return pair_sums(truth, forecast, weights).tau_b()[0]


def order_accuracy(truth: ArrayLike, forecast: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Share in 0..1 of the pairs of different truth that the forecast orders rightly; its ties count half."""
    return pair_sums(truth, forecast, weights).order_accuracy()[0]


def _ranks(values: ArrayLike) -> IntArray:
    return np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int64)


def _others(rank: IntArray, w: FloatArray) -> FloatArray:
    by_rank = np.bincount(rank, w)
    others: FloatArray = (
        by_rank.sum() - by_rank
    )  # summed from the ranks, so that a single rank leaves exactly 0
    return others[rank]


def _scores(x: IntArray, y: IntArray, w: FloatArray) -> FloatArray:
    """Sum over j of w_j sign(x_i - x_j) sign(y_i - y_j), for each i.

    A merge sort by the bits of y, from the top: rows stand in blocks of equal higher bits, by x inside
    a block. Two rows of different y part in exactly one level, where one has the bit and the other not.
    """
    scores = np.zeros(len(x))
    if not len(x):
        return scores
    order = np.argsort(x, kind="stable")
    for bit in reversed(range(int(y.max()).bit_length())):
        order = order[np.argsort(y[order] >> (bit + 1), kind="stable")]
        block = y[order] >> (bit + 1)
        one = (y[order] >> bit) & 1
        start, end = _runs(block)
        low, high = _runs(block, x[order])
        zeros, ones = _cumulate(w[order] * (1 - one)), _cumulate(w[order] * one)
        from_zeros = zeros[low] + zeros[high] - zeros[start] - zeros[end]
        from_ones = ones[low] + ones[high] - ones[start] - ones[end]
        scores[order] += np.where(one, from_zeros, -from_ones)
    return scores


def _cumulate(values: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(values)])


def _runs(*keys: IntArray) -> tuple[IntArray, IntArray]:
    """For each position the first and one past the last of the run with the same keys."""
    changes = np.zeros(len(keys[0]), bool)
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    edges = np.concatenate([[0], np.flatnonzero(changes), [len(changes)]])
    run = np.cumsum(changes)
    return edges[run], edges[run + 1]
