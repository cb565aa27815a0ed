"""Fits the lexical router: n-gram scores, then trees that read them, then a calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from mope.data.records import LengthData
from mope.data.split import Bounds
from mope.predictor.features import matrix
from mope.predictor.ngrams import bucket_ids
from mope.predictor.router import LexicalRouter, NgramScores, softmax
from mope.predictor.trees import Trees
from mope.training.boosting import Boosting, fit_buckets
from mope.types import BUCKETS, Request

BITS = 15
FOLDS = 5
# Chosen on ShareGPT's validation part: three times the trees gain 0.4 points of accuracy for 4 us a prompt,
# half as many lose 0.5; the n-gram scores gain 2.3 over the features alone.
ROUTER = Boosting(iterations=20, rate=0.25, leaves=16, depth=6)
# L2 on n-gram weights and on the calibration's distance from none, in nats over the whole data.
NGRAM_PENALTY = 1.1
CALIBRATION_PENALTY = 1.0
STEPS = 60
FLAT = 1e-2  # a slope this small, in nats over the whole data, is the minimum

Array = NDArray[np.float64]


def fit_router(train: LengthData, validation: LengthData, bounds: Bounds, seed: int = 0) -> LexicalRouter:
    """A router for `bounds`, trained on `train`, its probabilities calibrated on `validation`.

    Several answers to one prompt are shares of its one unit of weight.
    """
    requests, shares = train.requests, bucket_shares(train, bounds)
    folds = np.array([crc32(f"{seed}:{group}".encode()) % FOLDS for group in train.groups], dtype=np.int64)
    scores = _foreign_scores(requests, shares, folds)
    trees = fit_buckets(np.concatenate([matrix(requests), scores], axis=1), shares, ROUTER, seed)
    ngrams = fit_ngrams(requests, shares)
    scale, shift = _calibrate(ngrams, trees, validation, bounds)
    return LexicalRouter(ngrams, trees, scale, shift)


def bucket_shares(data: LengthData, bounds: Bounds) -> NDArray[np.float64]:
    """The share of each example's lengths that falls into each bucket, float64 [n, 3]."""
    rows = [
        np.bincount(bounds.bucket(example.lengths), minlength=len(BUCKETS)) / len(example.lengths)
        for example in data.examples
    ]
    return np.array(rows, dtype=np.float64).reshape(len(data), len(BUCKETS))


def fit_ngrams(requests: Sequence[Request], shares: NDArray[np.float64]) -> NgramScores:
    """Multinomial logistic regression of `shares` [n, 3] on the hashed n-grams, with an L2 penalty."""
    ids, starts = bucket_ids(requests, BITS)
    sizes = np.diff(starts)
    roots = np.sqrt(sizes)[:, None]

    def step(weights: Array, bias: Array) -> tuple[float, list[Array]]:
        scores = np.add.reduceat(weights.take(ids, axis=0), starts[:-1], axis=0) / roots + bias
        loss, error = _cross_entropy(scores, shares)
        shared = (error / roots).repeat(sizes, axis=0)
        pull = [np.bincount(ids, column, len(weights)) for column in shared.T]
        slope = np.stack(pull, axis=1) + 2 * NGRAM_PENALTY * weights
        return loss + NGRAM_PENALTY * float(np.square(weights).sum()), [slope, error.sum(axis=0)]

    weights, bias = _minimise(step, [np.zeros((1 << BITS, len(BUCKETS))), np.zeros(len(BUCKETS))])
    return NgramScores(weights.astype(np.float32), bias.astype(np.float32))


def _foreign_scores(
    requests: Sequence[Request], shares: NDArray[np.float64], folds: NDArray[np.int64]
) -> NDArray[np.float32]:
    """N-gram scores of each request by a fit that saw nothing of its conversation, float32 [n, 3].

    Scores of a fit on the same rows would look far better to the trees than they are.
    """
    scores = np.zeros(shares.shape, dtype=np.float32)
    for fold in np.unique(folds):
        inside = np.flatnonzero(folds == fold).tolist()
        # With one fold only there is nobody else to learn from: the scores stay flat.
        others = np.flatnonzero(folds != fold).tolist()
        if others:
            model = fit_ngrams([requests[i] for i in others], shares[others])
            scores[inside] = model([requests[i] for i in inside])
    return scores


def _calibrate(
    ngrams: NgramScores, trees: Trees, data: LengthData, bounds: Bounds
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inverse temperature [1] and shift [3] that make the margins' softmax likeliest on `data`."""
    if not len(data):
        return np.ones(1, dtype=np.float32), np.zeros(len(BUCKETS), dtype=np.float32)
    rows = np.concatenate([matrix(data.requests), ngrams(data.requests)], axis=1)
    margins, shares = trees.margins(rows), bucket_shares(data, bounds)

    def step(log_scale: Array, shift: Array) -> tuple[float, list[Array]]:
        scaled = margins * np.exp(log_scale)
        loss, error = _cross_entropy(scaled + shift, shares)
        slope = (error * scaled).sum(keepdims=True)[0] + 2 * CALIBRATION_PENALTY * log_scale
        distance = float(np.square(log_scale).sum() + np.square(shift).sum())
        return loss + CALIBRATION_PENALTY * distance, [
            slope,
            error.sum(axis=0) + 2 * CALIBRATION_PENALTY * shift,
        ]

    log_scale, shift = _minimise(step, [np.zeros(1), np.zeros(len(BUCKETS))])
    return np.exp(log_scale).astype(np.float32), shift.astype(np.float32)


def _cross_entropy(scores: Array, shares: Array) -> tuple[float, Array]:
    """Cross entropy in nats summed over the rows, and its slope in `scores`; rows of `shares` sum to one."""
    chances = softmax(scores)
    return -float((shares * np.log(np.maximum(chances, 1e-300))).sum()), chances - shares


def _minimise(step: Callable[..., tuple[float, list[Array]]], start: list[Array]) -> list[Array]:
    """Where the convex function is least whose value and slopes `step(*arrays)` gives (L-BFGS)."""
    parameters = [torch.from_numpy(array.copy()).requires_grad_() for array in start]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=STEPS, tolerance_grad=FLAT, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        loss, slopes = step(*(parameter.detach().numpy() for parameter in parameters))
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = torch.from_numpy(slope)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return [parameter.detach().numpy() for parameter in parameters]
