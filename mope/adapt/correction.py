"""The parts of an overlay, each fitted from a log of one model and held to the identity by its size.

Everything speaks of log1p(length). An answer that was cut at c is compared with min(forecast, c): a forecast above
what was seen costs nothing (Powell, 1986), which is the same as taking max(c, forecast) for its length.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mope.predictor.overlay import FAR, Ridge
from mope.predictor.router import softmax

FloatArray = NDArray[np.float64]

SHIFT_SD = 1.0  # of a router's log-odds between served models, before anything is seen
LEVEL_SD, SLOPE_SD = 1.0, 0.15  # of the correction's level and slope
BIN_ROWS, BINS = 40, 10  # answers a knot stands for, and the most knots
BIN_PRIOR = 20.0  # answers that the straight line weighs like at each knot
SPREAD_PRIOR = 20.0
PENALTIES = (1e0, 3e0, 1e1, 3e1, 1e2, 3e2, 1e3, 3e3)
LEAST_SCALE = 0.05  # a step of log1p(length) below which a distance is noise of rounding
ROUNDS = 30


def unseen(truth: FloatArray, cut: NDArray[np.bool_], forecast: FloatArray) -> FloatArray:
    """`truth` [n] with the cut answers as long as is forecast, where that is above what was seen."""
    return np.where(cut, np.maximum(truth, forecast), truth)


def fit_router(
    chances: FloatArray, bucket: NDArray[np.int64], cut: NDArray[np.bool_], weight: FloatArray
) -> tuple[float, float, float]:
    """Log-odds to add to chances [n, 3] so that the seen buckets [n] are likeliest, under a Gaussian prior at 0.

    A cut answer says that its bucket is `bucket` or a longer one: its share is given to them as the chances stand
    (expectation), then the log-odds are the maximum of a concave function (Newton).
    """
    places = np.arange(3)
    possible = np.where(cut[:, None], places >= bucket[:, None], places == bucket[:, None])
    logs, shift = np.log(np.maximum(chances, 1e-12)), np.zeros(3)
    for _ in range(ROUNDS):
        now = softmax(logs + shift)
        held = now * possible
        share = held / np.maximum(held.sum(1, keepdims=True), 1e-12)
        slope = (weight[:, None] * (share - now)).sum(0) - shift / SHIFT_SD**2
        curve = np.diag((weight[:, None] * now).sum(0)) - (weight[:, None] * now).T @ now
        shift = shift + np.clip(np.linalg.solve(curve + np.eye(3) / SHIFT_SD**2, slope), -1.0, 1.0)
    shift = shift - shift.mean()
    return float(shift[0]), float(shift[1]), float(shift[2])


def fit_line(
    x: FloatArray, truth: FloatArray, cut: NDArray[np.bool_], weight: FloatArray
) -> tuple[float, float, float]:
    """(middle, level, slope): truth ~ middle + level + slope (x - middle), of least absolute error under priors.

    The priors are Gaussians at level 0 and slope 1, which is the identity. Reweighted least squares.
    """
    if not len(x):
        return 0.0, 0.0, 1.0
    middle = float(np.average(x, weights=weight))
    design = np.stack([np.ones_like(x), x - middle], axis=1)
    prior = np.diag([1 / LEVEL_SD**2, 1 / SLOPE_SD**2])
    whole = ~cut if not cut.all() else cut  # cut answers say too little to start from
    line = np.array([_median((truth - x)[whole], weight[whole]), 1.0])
    for _ in range(ROUNDS):
        forecast = design @ line + middle
        off = unseen(truth, cut, forecast) - forecast
        scale = max(_median(np.abs(off), weight), LEAST_SCALE)
        pull = weight / (scale * np.maximum(np.abs(off), 1e-4))
        aim = unseen(truth, cut, forecast) - middle
        step = np.linalg.solve(
            (design * pull[:, None]).T @ design + prior, (design * pull[:, None]).T @ aim + prior @ [0.0, 1.0]
        )
        line = np.array([step[0], max(step[1], 0.0)])
    return middle, float(line[0]), float(line[1])


def fit_rising(
    x: FloatArray, truth: FloatArray, cut: NDArray[np.bool_], weight: FloatArray
) -> tuple[tuple[tuple[float, float], ...], float]:
    """Knots (x, y) of a rising function from forecasts x [n] to lengths, and its slope beyond them.

    The line of `fit_line`, bent at up to `BINS` quantiles of x by the median residual there, which `BIN_PRIOR`
    answers on the line hold back; made rising by pooling neighbours.
    """
    if not len(x):
        return (), 1.0
    middle, level, slope = fit_line(x, truth, cut, weight)
    bins = min(BINS, int(weight.sum() // BIN_ROWS))
    line = np.array([middle - 1.0, middle + 1.0])
    if bins < 3:
        return _knots(line, middle + level + slope * (line - middle)), slope
    edges = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    straight = middle + level + slope * (x - middle)
    off = unseen(truth, cut, straight) - straight
    knots, values, sizes = [], [], []
    for k in np.unique(place):
        here = place == k
        size = float(weight[here].sum())
        at = float(np.average(x[here], weights=weight[here]))
        bent = _median(off[here], weight[here]) * size / (size + BIN_PRIOR)
        knots.append(at)
        values.append(middle + level + slope * (at - middle) + bent)
        sizes.append(size)
    return _knots(np.array(knots), rising(np.array(values), np.array(sizes))), slope


def rising(values: FloatArray, weight: FloatArray) -> FloatArray:
    """The nearest sequence that never falls, by weighted squares (pool adjacent violators; Ayer et al., 1955)."""
    blocks: list[list[float]] = []
    for value, size in zip(values, weight, strict=True):
        blocks.append([float(value), float(size), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            b, a = blocks.pop(), blocks.pop()
            total = a[1] + b[1]
            blocks.append([(a[0] * a[1] + b[0] * b[1]) / total, total, a[2] + b[2]])
    return np.concatenate([np.full(int(count), value) for value, _, count in blocks] or [np.zeros(0)])


def fit_ridge(
    rows: FloatArray, rest: FloatArray, weight: FloatArray, fold: NDArray[np.int64]
) -> Ridge | None:
    """A linear function of basis rows [n, D] for what is left over, `rest` [n].

    Its penalty is the one that errs least on the folds it was not fitted on. Where its gain there over leaving the
    rest alone is not above its own standard error over the folds, there is no ridge: the best of many penalties
    looks good on a short log by chance alone.
    """
    if len(np.unique(fold)) < 2:
        return None
    middle = _median(rest, weight)
    reach = max(3 * 1.4826 * _median(np.abs(rest - middle), weight), LEAST_SCALE)
    aim = np.clip(rest, middle - reach, middle + reach)
    gains = []
    for k in np.unique(fold):
        here = fold == k
        fits = _ridges(rows[~here], aim[~here], weight[~here])
        off = np.array([rest[here] - ridge(rows[here]) for ridge in fits])
        gains.append(((np.abs(rest[here]) - np.abs(off)) * weight[here]).sum(1))
    found = np.array(gains)  # folds x penalties
    best = int(found.sum(0).argmax())
    if found[:, best].mean() <= found[:, best].std(ddof=1) / len(found) ** 0.5:
        return None
    return _ridges(rows, aim, weight)[best]


def _ridges(rows: FloatArray, aim: FloatArray, weight: FloatArray) -> list[Ridge]:
    """One ridge for each penalty, without a constant: the level is the rising function's."""
    center = np.average(rows, axis=0, weights=weight)
    scale = np.sqrt(np.average((rows - center) ** 2, axis=0, weights=weight))
    flat = scale < 1e-6
    scale = np.where(flat, 1.0, scale)
    level = np.clip((rows - center) / scale, -FAR, FAR) * ~flat
    gram, pull = (level * weight[:, None]).T @ level, (level * weight[:, None]).T @ aim
    values, vectors = np.linalg.eigh(gram)
    turned, found = vectors.T @ pull, []
    for penalty in PENALTIES:
        weights = vectors @ (turned / (np.maximum(values, 0.0) + penalty))
        limit = float(np.abs(level @ weights).max(initial=0.0))
        found.append(Ridge(tuple(center.tolist()), tuple(scale.tolist()), tuple(weights.tolist()), limit))
    return found


def fit_spread(
    logs: FloatArray,
    truth: FloatArray,
    cut: NDArray[np.bool_],
    weight: FloatArray,
    levels: tuple[float, ...],
) -> float:
    """How far quantiles [n, K] should stand from their median relative to now: least pinball loss, held to 1."""
    if not len(truth):
        return 1.0
    tries, level = np.exp(np.linspace(-1.5, 1.0, 51)), np.array(levels)
    median = logs[:, levels.index(0.5)][:, None]
    losses = []
    for stretch in tries:
        forecast = median + stretch * (logs - median)
        miss = np.where(cut[:, None], np.maximum(truth[:, None], forecast), truth[:, None]) - forecast
        losses.append(float((weight * np.maximum(level * miss, (level - 1) * miss).mean(1)).sum()))
    size = float(weight.sum())
    return float(tries[int(np.argmin(losses))] ** (size / (size + SPREAD_PRIOR)))


def _knots(x: FloatArray, y: FloatArray) -> tuple[tuple[float, float], ...]:
    found = tuple((float(a), float(b)) for a, b in zip(x, y, strict=True))
    assert all(a[0] < b[0] for a, b in pairwise(found)), found
    return found


def _median(values: FloatArray, weight: FloatArray) -> float:
    """The weighted median."""
    from mope.evaluation.metrics import weighted_median

    return weighted_median(values, weight)
