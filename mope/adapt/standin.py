"""Which known served model a new one is most like: the bundle's answers for that one are where its overlay starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mope.adapt.correction import unseen
from mope.adapt.observed import fold_of, in_order
from mope.data.records import Example
from mope.evaluation.metrics import weighted_median
from mope.predictor import layout
from mope.predictor.bundle import MoPE

ASKED = 60  # requests of the log that every known model is asked about
BLOCK = 16  # known models asked about at a time
MARGIN = 0.02  # share of the error by which another model must be nearer than the model's own reading
MOVE = 0.5  # how far forecasts are moved to the log's level before they are compared: the level is a likeness, too
TOKEN_UNIT = 300.0  # tokens that weigh as much as one step of log1p, as in training
FloatArray = NDArray[np.float64]


def nearest(bundle: MoPE, examples: Sequence[Example], own: str) -> str:
    """The known model whose forecasts, moved half of the way to the log's level, err least on the log.

    An error in log1p(length) weighs by 1 + length / 300, as in training: long answers make the error in tokens.

    `own` where none is clearly nearer than how the bundle reads the model anyway. One network is asked, about at most
    `ASKED` requests.
    """
    models = ["", *bundle.config.models]
    if len(models) == 1:
        return own
    some = sorted(in_order(examples), key=lambda e: fold_of(e.group))[:: -(-len(examples) // ASKED)]
    truth = np.log1p([float(np.median(e.lengths)) for e in some])
    cut = np.array([e.limit is not None and np.median(e.lengths) >= e.limit for e in some])
    return models[chosen(_medians(bundle, some, len(models)), truth, cut, models.index(own))]


def chosen(said: FloatArray, truth: FloatArray, cut: NDArray[np.bool_], own: int) -> int:
    """The row of forecasts `said` [M, n] nearest to `truth` [n]; `own` unless another is clearly nearer."""
    errors = np.array([_error(row, truth, cut) for row in said])
    best = int(errors.argmin())
    return best if errors[best] < (1 - MARGIN) * errors[own] else own


def _error(said: FloatArray, truth: FloatArray, cut: NDArray[np.bool_]) -> float:
    forecast = said + MOVE * weighted_median(truth - said, np.ones_like(truth))
    weight = 1 + np.expm1(truth) / TOKEN_UNIT
    return float((weight * np.abs(unseen(truth, cut, forecast) - forecast)).mean())


def _medians(bundle: MoPE, examples: Sequence[Example], models: int) -> FloatArray:
    """What one network says of the requests as each known model's (0: unknown), log1p medians [M, n]."""
    network = layout.PROXY if bundle.backend.has(layout.PROXY) else "medium"
    inputs = bundle.inputs([replace(example.request, model=None) for example in examples])
    n, middle, found = len(inputs), bundle.config.quantiles.index(0.5), []
    for first in range(0, models, BLOCK):
        some = np.arange(first, min(first + BLOCK, models))
        asked = replace(inputs.take(np.tile(np.arange(n), len(some))), model=np.repeat(some, n))
        found.append(bundle.run([network], asked)[network][:, middle].reshape(len(some), n))
    return np.concatenate(found)
