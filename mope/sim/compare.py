"""Variants over the same seeds: means with intervals, paired differences, exact tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import exp, lgamma, log, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from mope.sim.table import Mean, mean

MOST_EXACT = 14  # pairs up to which all sign flips are counted
DRAWN = 20_000
Test = Callable[[Sequence[float]], float]  # two-sided p of a mean of zero


class Difference(NamedTuple):
    """A paired comparison. `value` with its 95 % interval is a difference, or a ratio where `ratio` says so."""

    value: float
    low: float
    high: float
    p: float
    ratio: bool


def difference(ours: Sequence[float], theirs: Sequence[float], test: Test | None = None) -> Difference:
    """ours - theirs, paired by seed; p by sign flips unless another test is given."""
    changes = [one - other for one, other in zip(ours, theirs, strict=True)]
    return Difference(*mean(changes), (test or sign_flip_p)(changes), False)


def ratio(ours: Sequence[float], theirs: Sequence[float], test: Test | None = None) -> Difference | None:
    """ours / theirs, paired by seed: the geometric mean; None where something is not above 0."""
    if min(*ours, *theirs) <= 0:
        return None
    changes = [log(one / other) for one, other in zip(ours, theirs, strict=True)]
    middle: Mean = mean(changes)
    value, low, high = (exp(end) for end in middle)
    return Difference(value, low, high, (test or sign_flip_p)(changes), True)


def sign_flip_p(changes: Sequence[float]) -> float:
    """Two-sided p of a mean of zero: the share of sign flips whose mean is as far from it (Fisher's exact test).

    Exact up to 14 pairs, beyond from 20,000 drawn flips; never below 2 / 2**n, so that few seeds prove little.
    """
    values = np.asarray(changes, np.float64)
    if len(values) < 2 or not np.any(values):
        return 1.0
    if len(values) <= MOST_EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(values))))
    else:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), (DRAWN, len(values)))
    means = np.abs(signs @ values)
    reached = int((means >= abs(values.sum()) * (1 - 1e-12)).sum())
    return reached / len(signs) if len(values) <= MOST_EXACT else (reached + 1) / (len(signs) + 1)


def student_p(changes: Sequence[float]) -> float:
    """Two-sided p of a mean of zero by Student's t, as for normal changes; it has no least value.

    p = I_x(v / 2, 1 / 2) at x = v / (v + t^2), I the regularised incomplete beta function, v = n - 1.
    """
    count = len(changes)
    if count < 2 or not any(changes):
        return 1.0
    spread, middle = stdev(changes), fmean(changes)
    if spread <= 1e-12 * abs(middle):
        return 0.0
    t, v = middle * sqrt(count) / spread, count - 1
    return _beta(v / (v + t * t), v / 2, 0.5)


def _beta(x: float, a: float, b: float) -> float:
    """I_x(a, b) by its continued fraction (Lentz), which converges fast below (a + 1) / (a + b + 2)."""
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = exp(a * log(x) + b * log(1 - x) + lgamma(a + b) - lgamma(a) - lgamma(b)) / a if x > 0 else 0.0
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, 200):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            c, d = 1 + term / c, 1 / (1 + term * d)
            found *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * found


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction of several comparisons, by name."""
    order = sorted(p_values, key=lambda name: p_values[name])
    corrected, highest = {}, 0.0
    for rank, name in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}
