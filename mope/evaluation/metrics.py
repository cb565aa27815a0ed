"""Pure functions that measure forecasts of output length: numpy arrays in, numbers out.

Names without a verb return one number; `absolute_error`, `log_error`, `within`, `pinball` and
`covered` return one number per row, which is what a bootstrap over groups needs. Lengths are in
tokens. `weights` [n] default to 1: where a prompt was answered k times each answer weighs 1/k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mope.evaluation.ranks import kendall_tau_b, order_accuracy
from mope.types import BUCKETS

__all__ = [
    "absolute_error",
    "acc_within",
    "bucket_accuracy",
    "confusion_matrix",
    "coverage",
    "covered",
    "kendall_tau_b",
    "leave_one_out_errors",
    "log_error",
    "log_mae",
    "macro_f1",
    "mae",
    "mean",
    "mean_width",
    "median_ae",
    "noise_floor",
    "order_accuracy",
    "pinball",
    "pinball_loss",
    "skill",
    "weighted_median",
    "within",
]

FloatArray = NDArray[np.float64]


def absolute_error(truth: ArrayLike, forecast: ArrayLike) -> FloatArray:
    """|truth - forecast| in tokens, [n]."""
    error: FloatArray = np.abs(_floats(truth) - _floats(forecast))
    return error


def log_error(truth: ArrayLike, forecast: ArrayLike) -> FloatArray:
    """|log1p(truth) - log1p(forecast)|, [n]; a negative forecast counts as 0."""
    error: FloatArray = np.abs(np.log1p(_floats(truth)) - np.log1p(np.maximum(_floats(forecast), 0.0)))
    return error


def within(truth: ArrayLike, forecast: ArrayLike, tokens: float) -> FloatArray:
    """1 where the forecast is at most `tokens` off, else 0, [n]."""
    return (absolute_error(truth, forecast) <= tokens).astype(np.float64)


def pinball(truth: ArrayLike, quantiles: ArrayLike, levels: Sequence[float]) -> FloatArray:
    """Pinball loss in tokens, mean over the levels, [n]; quantiles [n, K] at levels [K]."""
    gap = _floats(truth)[:, None] - _floats(quantiles)
    level = _floats(levels)
    loss: FloatArray = np.maximum(level * gap, (level - 1) * gap).mean(axis=1)
    return loss


def covered(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> FloatArray:
    """1 where low <= truth <= high, else 0, [n]."""
    length = _floats(truth)
    return ((_floats(low) <= length) & (length <= _floats(high))).astype(np.float64)


def mean(values: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Weighted mean; NaN of nothing."""
    array = _floats(values)
    if not array.size:
        return float("nan")
    return float(np.average(array, weights=None if weights is None else _floats(weights)))


def weighted_median(values: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The value with half the weight on each side, or the mean of the two that share it; NaN of nothing."""
    array = _floats(values)
    if not array.size:
        return float("nan")
    order = np.argsort(array, kind="stable")
    share = np.ones(array.size) if weights is None else _floats(weights)
    return sorted_median(array[order], share[order])


def sorted_median(values: FloatArray, weights: FloatArray) -> float:
    """`weighted_median` of values that are sorted already."""
    reached = np.cumsum(weights)
    # sums such as 1/3 + 1/3 + 1/3 miss one half by rounding, so one half is a narrow band
    half, slack = reached[-1] / 2, reached[-1] * 1e-12
    lower = np.searchsorted(reached, half - slack)
    upper = np.searchsorted(reached, half + slack)
    return float(values[lower] + values[upper]) / 2


def mae(truth: ArrayLike, forecast: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean absolute error in tokens."""
    return mean(absolute_error(truth, forecast), weights)


def median_ae(truth: ArrayLike, forecast: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Median absolute error in tokens."""
    return weighted_median(absolute_error(truth, forecast), weights)


def acc_within(
    truth: ArrayLike, forecast: ArrayLike, tokens: float, weights: ArrayLike | None = None
) -> float:
    """Share of forecasts at most `tokens` off (Acc-50, Acc-100)."""
    return mean(within(truth, forecast, tokens), weights)


def log_mae(truth: ArrayLike, forecast: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean absolute error of log1p of the length."""
    return mean(log_error(truth, forecast), weights)


def pinball_loss(
    truth: ArrayLike, quantiles: ArrayLike, levels: Sequence[float], weights: ArrayLike | None = None
) -> float:
    """Mean pinball loss in tokens over rows and levels; quantiles [n, K] at levels [K]."""
    return mean(pinball(truth, quantiles, levels), weights)


def coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Share of lengths inside their interval, ends included."""
    return mean(covered(truth, low, high), weights)


def mean_width(low: ArrayLike, high: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean width of the interval in tokens."""
    return mean(_floats(high) - _floats(low), weights)


def confusion_matrix(truth: ArrayLike, forecast: ArrayLike, weights: ArrayLike | None = None) -> FloatArray:
    """Weight by [true bucket, predicted bucket], [3, 3]; both inputs are bucket numbers [n]."""
    size = len(BUCKETS)
    cell = np.asarray(truth, np.int64) * size + np.asarray(forecast, np.int64)
    share = None if weights is None else _floats(weights)
    return np.bincount(cell, share, minlength=size * size).reshape(size, size).astype(np.float64)


def bucket_accuracy(confusion: FloatArray) -> FloatArray:
    """Share on the diagonal of confusion [..., B, B], [...]; NaN of nothing."""
    total = confusion.sum(axis=(-2, -1))
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), total)


def macro_f1(confusion: FloatArray) -> FloatArray:
    """Mean F1 over the buckets that occur as truth or forecast in confusion [..., B, B], [...]."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    occurs = total > 0
    return _ratio(np.where(occurs, _ratio(2 * hits, total), 0.0).sum(axis=-1), occurs.sum(axis=-1))


def skill(constant: ArrayLike, model: ArrayLike, floor: ArrayLike) -> FloatArray:
    """(constant - model) / (constant - floor) of three errors: 0 is the constant, 1 the noise floor."""
    return _ratio(_floats(constant) - _floats(model), _floats(constant) - _floats(floor))


def leave_one_out_errors(lengths: Sequence[float]) -> FloatArray:
    """Distance of each answer, by rising length, to the median of the same prompt's others, [k]; k >= 2."""
    assert len(lengths) >= 2, "one answer has no others"
    values = np.sort(_floats(lengths))
    left_out = np.arange(len(values))
    low, high = (len(values) - 2) // 2, (len(values) - 1) // 2
    others = (values[low + (low >= left_out)] + values[high + (high >= left_out)]) / 2
    return absolute_error(values, others)


def noise_floor(samples: Sequence[Sequence[float]]) -> float:
    """MAE of the leave-one-out median over prompts, each weighing 1; prompts with one answer say nothing.

    The median of k - 1 answers is itself noisy, so this lies somewhat above the error of a perfect
    forecast, and a very good model's skill may pass 1. NaN where no prompt has two answers.
    """
    return mean([float(leave_one_out_errors(lengths).mean()) for lengths in samples if len(lengths) > 1])


def _floats(values: ArrayLike) -> FloatArray:
    return np.asarray(values, np.float64)


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    below = _floats(denominator)
    return np.divide(_floats(numerator), below, out=np.full_like(below, np.nan), where=below != 0)
