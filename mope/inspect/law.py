"""A power law through the errors at several sizes, and where it leads.

    error(n) = floor + scale * n ** -power        floor, scale >= 0

For each power of a grid the other two follow by least squares on relative errors; the best power wins. Curves are
fitted by the thousand at once, which is what a bootstrap asks for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
POWERS = np.round(np.arange(0.05, 1.51, 0.05), 2)


class Law(NamedTuple):
    """Parameters of B curves, each [B]."""

    floor: FloatArray
    scale: FloatArray
    power: FloatArray

    def at(self, size: float) -> FloatArray:
        """The errors [B] at a size."""
        found: FloatArray = self.floor + self.scale * size**-self.power
        return found


def fit(sizes: FloatArray, errors: FloatArray) -> Law:
    """Laws through `errors` [B, S], above 0, at `sizes` [S], at least 3 of them."""
    weight = 1.0 / errors
    tried = [_at_power(sizes**-power, errors, weight) for power in POWERS]
    losses = np.stack([loss for _, _, loss in tried])
    best = losses.argmin(axis=0)
    curve = np.arange(len(errors))
    floor, scale = (np.stack([t[i] for t in tried])[best, curve] for i in (0, 1))
    return Law(floor, scale, POWERS[best])


def _at_power(
    x: FloatArray, errors: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Least squares of errors on 1 and x [S] with both coefficients at least 0, and what is left: each [B]."""
    w = weight**2
    total = w.sum(1)
    mean_x, mean_y = (w * x).sum(1) / total, (w * errors).sum(1) / total
    dx = x[None, :] - mean_x[:, None]
    slope = np.maximum((w * dx * errors).sum(1) / (w * dx * dx).sum(1), 0.0)
    floor = mean_y - slope * mean_x
    through = (w * x * errors).sum(1) / (w * x * x).sum(1)
    slope, floor = np.where(floor < 0, through, slope), np.maximum(floor, 0.0)
    left = ((floor[:, None] + slope[:, None] * x - errors) ** 2 * w).sum(1)
    return floor, slope, left
