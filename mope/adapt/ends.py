"""Moves of both ends of the 80 % interval from a short log: split-conformal, with cut answers as censored scores.

As in `mope.predictor.calibration`, a score is how far the truth lies outside the interval. Where the answer was cut
its score above the upper end is only known not to be less, so that end's quantile is of the product-limit
distribution (Kaplan and Meier, 1958). Below the lower end a cut answer scores at most what was seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mope.predictor.calibration import HIGH, LOW
from mope.types import BUCKETS

FloatArray = NDArray[np.float64]
BUNDLE_PRIOR = 5.0  # answers that the bundle's own ends weigh like
BUCKET_PRIOR = 30.0  # answers that the log's common move weighs like in each bucket


def fit_ends(
    low: FloatArray,
    high: FloatArray,
    truth: FloatArray,
    cut: NDArray[np.bool_],
    weight: FloatArray,
    bucket: NDArray[np.int64],
) -> tuple[tuple[float, float], ...]:
    """Moves (of low, of high) for each bucket, for intervals [n] in log1p(length) of answers that were not seen.

    A bucket's move is held to the move of all, and that to none.
    """
    both = (low - truth, np.zeros(len(truth), np.bool_), LOW), (truth - high, cut, 1 - HIGH)
    size = float(weight.sum())
    moves = []
    for (scores, censored, miss), sign in zip(both, (-1.0, 1.0), strict=True):
        common = _held(quantile(scores, censored, weight, miss), 0.0, size, BUNDLE_PRIOR)
        column = []
        for k in range(len(BUCKETS)):
            here = bucket == k
            own = quantile(scores[here], censored[here], weight[here], miss)
            column.append(sign * _held(own, common, float(weight[here].sum()), BUCKET_PRIOR))
        moves.append(column)
    return tuple(zip(*moves, strict=True))


def quantile(scores: FloatArray, censored: NDArray[np.bool_], weight: FloatArray, miss: float) -> float:
    """The score that a share of at most `miss` exceeds, one more answer (beyond all) counted; NaN of nothing.

    A censored score is only known not to be less.
    """
    if not len(scores):
        return float("nan")
    order = np.lexsort((censored, scores))
    scores, censored, weight = scores[order], censored[order], weight[order]
    after = weight[::-1].cumsum()[::-1] + weight.max()  # what may still exceed each score, itself included
    left = np.cumprod(np.where(censored, 1.0, 1.0 - weight / after))
    place = int(np.searchsorted(-left, -(miss + 1e-12)))
    return float(scores[min(place, len(scores) - 1)])


def _held(value: float, prior: float, size: float, strength: float) -> float:
    """`value` of `size` answers held to `prior`, which weighs like `strength` answers."""
    if np.isnan(value):
        return prior
    return prior + (value - prior) * size / (size + strength)
