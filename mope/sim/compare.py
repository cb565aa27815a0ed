"""Variants over the same seeds: means with intervals, paired differences, exact tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import exp, log
from typing import NamedTuple

import numpy as np

from mope.sim.table import Mean, mean

MOST_EXACT = 14  # pairs up to which all sign flips are counted
DRAWN = 20_000


class Difference(NamedTuple):
    """A paired comparison. `value` with its 95 % interval is a difference, or a ratio where `ratio` says so."""

    value: float
    low: float
    high: float
    p: float
    ratio: bool


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """ours - theirs, paired by seed."""
    changes = [one - other for one, other in zip(ours, theirs, strict=True)]
    return Difference(*mean(changes), sign_flip_p(changes), False)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Difference | None:
    """ours / theirs, paired by seed: the geometric mean; None where something is not above 0."""
    if min(*ours, *theirs) <= 0:
        return None
    changes = [log(one / other) for one, other in zip(ours, theirs, strict=True)]
    middle: Mean = mean(changes)
    value, low, high = (exp(end) for end in middle)
    return Difference(value, low, high, sign_flip_p(changes), True)


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


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction of several comparisons, by name."""
    order = sorted(p_values, key=lambda name: p_values[name])
    corrected, highest = {}, 0.0
    for rank, name in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}
