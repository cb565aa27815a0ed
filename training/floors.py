"""Fits the floors that every report shows beside a model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mope.data.records import LengthData
from mope.data.split import Bounds
from mope.predictor.features import matrix
from mope.predictor.floors import COLUMNS, Floor, Floors
from mope.predictor.trees import Trees
from mope.training.boosting import Boosting, fit_buckets, fit_lengths
from mope.training.lexical import bucket_shares

LENGTH = Boosting(iterations=250, rate=0.08, l2=1.0)
BUCKET = Boosting(iterations=120, rate=0.06)


def fit_floors(train: LengthData, validation: LengthData, bounds: Bounds, seed: int = 0) -> Floors:
    """Floors trained on the median length of each example, capped at `bounds.cap`.

    Lengths are learned as they are or as log1p, whichever errs less on `validation`.
    """
    rows, targets = matrix(train.requests), np.minimum(train.lengths, bounds.cap)
    shares = bucket_shares(train, bounds)
    held_out = matrix(validation.requests), validation.lengths
    floors = {}
    for name, columns in COLUMNS.items():
        own = rows[:, :columns]
        length, log = _lengths(own, targets, (held_out[0][:, :columns], held_out[1]), seed)
        floors[name] = Floor(length, fit_buckets(own, shares, BUCKET, seed), log)
    constant_bucket = int(shares.sum(axis=0).argmax())
    return Floors(float(np.median(targets)), constant_bucket, floors["surface"], floors["context"])


def _lengths(
    rows: NDArray[np.float32],
    targets: NDArray[np.float64],
    held_out: tuple[NDArray[np.float32], NDArray[np.float64]],
    seed: int,
) -> tuple[Trees, bool]:
    """Trees for the length and whether they speak of log1p(length)."""
    plain = fit_lengths(rows, targets, LENGTH, seed)
    logged = fit_lengths(rows, np.log1p(targets), LENGTH, seed)
    others, lengths = held_out
    if not len(lengths):
        return plain, False
    error = np.abs(plain.margins(others)[:, 0] - lengths).mean()
    log_error = np.abs(np.expm1(logged.margins(others)[:, 0]) - lengths).mean()
    return (logged, True) if log_error < error else (plain, False)
