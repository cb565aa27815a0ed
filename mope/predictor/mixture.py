"""Several experts' quantiles as one distribution: what soft routing answers with.

An expert's quantiles [n, K] of log1p(length) at `levels` [K] are the knots of a piecewise linear distribution
function, with tails that run on for `TAIL` times the outermost step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TAIL = 2.0
FloatArray = NDArray[np.float64]


def with_tails(knots: FloatArray, levels: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    """Knots [..., K + 2] and levels [K + 2] that reach from probability 0 to 1."""
    low = knots[..., :1] - TAIL * (knots[..., 1:2] - knots[..., :1])
    high = knots[..., -1:] + TAIL * (knots[..., -1:] - knots[..., -2:-1])
    return np.concatenate([low, knots, high], axis=-1), np.array([0.0, *levels, 1.0])


def distribution(at: FloatArray, knots: FloatArray, levels: Sequence[float]) -> FloatArray:
    """Probability of at most `at` [n, G] under quantiles `knots` [n, K]: float64 [n, G]."""
    full, ends = with_tails(knots, levels)
    start, step = full[:, None, :-1], np.maximum(np.diff(full, axis=-1), 1e-9)[:, None, :]
    share = np.clip((at[:, :, None] - start) / step, 0.0, 1.0)
    total: FloatArray = share @ np.diff(ends)
    return total


def mix(knots: FloatArray, probabilities: FloatArray, levels: Sequence[float]) -> FloatArray:
    """Quantiles [n, K] of the mixture of E experts: `knots` [n, E, K] weighted by `probabilities` [n, E]."""
    n, experts, _ = knots.shape
    full, _ = with_tails(knots, levels)
    at = np.sort(full.reshape(n, -1), axis=1)
    total = np.zeros_like(at)
    for k in range(experts):
        total += probabilities[:, k : k + 1] * distribution(at, knots[:, k], levels)
    return _inverse(at, total, np.asarray(levels, np.float64))


def routed(routing: str, knots: FloatArray, probabilities: FloatArray, levels: Sequence[float]) -> FloatArray:
    """Quantiles [n, K] by the likeliest expert alone (`hard`) or by the mixture of all (`soft`)."""
    if routing == "hard":
        chosen: FloatArray = knots[np.arange(len(knots)), probabilities.argmax(1)]
        return chosen
    return mix(knots, probabilities, levels)


def _inverse(at: FloatArray, total: FloatArray, levels: FloatArray) -> FloatArray:
    """Where each row's rising function `total` [n, G] over `at` [n, G] reaches each of `levels` [K]."""
    above = (total[:, :, None] < levels[None, None, :]).sum(axis=1).clip(1, at.shape[1] - 1)
    rows = np.arange(len(at))[:, None]
    x0, x1, y0, y1 = at[rows, above - 1], at[rows, above], total[rows, above - 1], total[rows, above]
    share = np.clip((levels[None, :] - y0) / np.maximum(y1 - y0, 1e-12), 0.0, 1.0)
    out: FloatArray = x0 + share * (x1 - x0)
    return out
