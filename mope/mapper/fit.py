"""Fits the numbers of a step's parts to measured points, and says how far off they are on points held out.

Residuals are logarithms of predicted over measured time, under a soft-L1 loss, so that a few outliers do not pull.
Each number is held weakly to its default: where the points say nothing, the default stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from mope.errors import DataError
from mope.extras import require
from mope.mapper.numbers import Floats
from mope.mapper.parts import SMALL, Decode, Linear, Link, Overhead, Prefill
from mope.mapper.points import (
    DecodePoints,
    LayerPoints,
    LinkPoints,
    Points,
    PrefillPoints,
    StepPoints,
    count,
    take,
)
from mope.mapper.steps import Direct, Layered

Part = TypeVar("Part", Linear, Decode, Prefill, Link, Overhead, Direct)
Predict = Callable[[Any, Any], Floats]
SCALE = 0.03  # relative error where the loss turns from square to linear
FOLDS = 5
RANGES = 4
MOST_POINTS = 2500  # a larger table is thinned for the fit, never for the held-out error
TURNS = (0.0, 128.0, 192.0, 256.0, 384.0, 512.0, 768.0)
PRIOR = 1.5  # standard deviation, in log units, of a number about its default
TIGHT = {"compute": 0.12, "memory": 0.12, "elementwise": 0.4, "fixed": 0.7, "blend": 0.3}
UPPER = {"waves": 1.0, "idle": 2.0, "reread": 1.0, "blend": 6.0}
LOWER = {"blend": 1.0}


@dataclass(frozen=True, slots=True)
class Held:
    """Relative error on points that were not fitted: median, 80th and 90th percentile, how many."""

    median: float
    p80: float
    p90: float
    points: int

    @classmethod
    def of(cls, errors: Floats) -> Held:
        """From absolute relative errors."""
        median, p80, p90 = (float(np.quantile(errors, level)) for level in (0.5, 0.8, 0.9))
        return cls(median, p80, p90, int(errors.size))


@dataclass(frozen=True, slots=True)
class Errors:
    """`inside`: random folds (interpolation). `ranges`: one range held out, the others fitted (extrapolation)."""

    inside: Held
    ranges: Mapping[str, Held]


def least_numbers(part: Part, names: tuple[str, ...], points: Points, predict: Predict) -> Part:
    """`part` with the numbers `names` fitted to the points; deterministic."""
    require("fit", "fitting a hardware profile")
    from scipy.optimize import least_squares  # type: ignore[import-untyped]

    step = max(1, count(points) // MOST_POINTS)
    points = take(points, np.arange(0, count(points), step))
    measured = points.seconds  # type: ignore[union-attr]
    start = np.log([getattr(part, name) for name in names])
    sd = np.array([TIGHT.get(name, PRIOR) for name in names])
    lower = np.log([LOWER.get(name, 1e-26) for name in names])
    upper = np.log([UPPER.get(name, 1e6 * getattr(part, name)) for name in names])

    def build(x: Floats) -> Part:
        return replace(part, **dict(zip(names, map(float, np.exp(x)), strict=True)))

    def residuals(x: Floats) -> Floats:
        error = np.log(predict(build(x), points) / measured) / SCALE
        soft = np.sign(error) * np.sqrt(2.0 * (np.sqrt(1.0 + error * error) - 1.0))
        return np.concatenate([soft, (x - start) / sd])

    begin = np.minimum(start, upper - 1e-3)
    found = least_squares(residuals, begin, bounds=(lower, upper), x_scale="jac")
    return build(found.x)


def relative_errors(part: Part, points: Points, predict: Predict) -> Floats:
    """|predicted / measured - 1| of every point."""
    return np.abs(predict(part, points) / points.seconds - 1.0)  # type: ignore[union-attr]


def cross_validate(
    fit: Callable[[Points], Part], points: Points, key: Floats, predict: Predict, unit: str, seed: int = 0
) -> Errors:
    """Held-out errors of `fit`: five random folds, and four ranges of `key` one at a time.

    The ranges end at 1/64, 1/16, 1/4 and all of the largest: what happens to a layer goes by orders of magnitude.
    """
    n = count(points)
    if n < 2 * FOLDS:
        raise DataError(f"{n} points", f"at least {2 * FOLDS}", "measure more, or fit by hand")
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    inside = np.concatenate([_held(fit, points, fold == f, predict) for f in range(FOLDS)])
    top: float = float(np.max(key))
    cuts: list[float] = [0.0, *(top / 4.0**i for i in range(RANGES - 1, -1, -1))]
    ranges = {}
    for low, high in pairwise(cuts):
        out = (key > low) & (key <= high)
        if 0 < out.sum() < n - 2:
            ranges[f"{low:g}-{high:g} {unit}"] = Held.of(_held(fit, points, out, predict))
    return Errors(Held.of(inside), ranges)


def _held(fit: Callable[[Points], Part], points: Points, out: np.ndarray, predict: Predict) -> Floats:
    return relative_errors(fit(take(points, ~out)), take(points, out), predict)


def fit_linear(law: Layered, points: LayerPoints, seed: int = 0) -> tuple[Linear, Errors]:
    """The layer without attention."""
    predict = partial(predict_linear, law)

    def fit(at: Points) -> Linear:
        assert isinstance(at, LayerPoints)
        names: tuple[str, ...] = ("compute", "memory", "fixed", "elementwise", "waves", "blend")
        start = law.linear
        # The jump at 64 rows can only be seen from both of its sides.
        if np.sum(at.tokens <= SMALL) >= 8 and np.sum((at.tokens > SMALL) & (at.tokens <= 3 * SMALL)) >= 8:
            names, start = (*names, "reread"), replace(start, reread=0.2)
        return least_numbers(start, names, at, predict)

    return fit(points), cross_validate(fit, points, points.tokens, predict, "tokens", seed)


def fit_decode(law: Layered, points: DecodePoints, seed: int = 0) -> tuple[Decode, Errors]:
    """Decode attention of a layer."""
    predict = partial(predict_decode, law)

    def fit(at: Points) -> Decode:
        names = ("fixed", "sequence", "short", "long", "waves", "idle")
        found = [least_numbers(replace(law.attention, turn=turn), names, at, predict) for turn in TURNS]
        return min(found, key=lambda part: float(np.median(relative_errors(part, at, predict))))

    return fit(points), cross_validate(fit, points, points.context, predict, "tokens of context", seed)


def fit_prefill(law: Layered, points: PrefillPoints, seed: int = 0) -> tuple[Prefill, Errors]:
    """Prefill attention of a layer."""
    predict = partial(predict_prefill, law)

    def fit(at: Points) -> Prefill:
        assert isinstance(at, PrefillPoints)
        # Where every call has one prompt, its start cannot be told from the call's.
        several = ("prompt",) if np.any(at.batch > 1) else ()
        after = ("prefix", "reading") if np.any(at.prefix > 0) else ()
        return least_numbers(law.reading, ("fixed", "row", "own", *several, *after), at, predict)

    return fit(points), cross_validate(fit, points, points.tokens, predict, "tokens", seed)


def fit_link(law: Layered, points: LinkPoints, seed: int = 0) -> tuple[Link, Errors]:
    """The all-reduce."""
    predict = partial(predict_link, law)

    def fit(at: Points) -> Link:
        return least_numbers(law.link, ("latency", "share"), at, predict)

    return fit(points), cross_validate(fit, points, points.size, predict, "bytes", seed)


def fit_overhead(sequences: Floats, seconds: Floats) -> Overhead:
    """The engine's own time in a step, from how it grows with the sequences."""
    points = StepPoints(np.zeros_like(sequences), sequences, np.zeros_like(sequences), seconds)
    return least_numbers(
        Overhead(), ("step", "sequence"), points, lambda part, at: part.step + part.sequence * at.batch
    )


def fit_direct(points: StepPoints, seed: int = 0) -> tuple[Direct, Errors]:
    """Lines through an engine's steps."""

    def fit(at: Points) -> Direct:
        assert isinstance(at, StepPoints)
        names = tuple(name for name in _DIRECT if _says(name, at))
        return least_numbers(_start(at), names, at, predict_direct)

    return fit(points), cross_validate(fit, points, points.context, predict_direct, "tokens of context", seed)


_DIRECT = ("step", "sequence", "context", "prefill_step", "prefill_token")


def _says(name: str, at: StepPoints) -> bool:
    """Whether the points hold anything about a number: no prompt read, nothing about reading."""
    return bool(np.any(at.tokens > 0)) if name.startswith("prefill") else bool(np.any(at.batch > 0))


def _start(at: StepPoints) -> Direct:
    """A rough first line, so that the weak prior is about the right size whatever the machine."""
    typical = float(np.median(at.seconds))

    def slope(x: Floats) -> float:
        return 0.2 * typical / max(float(np.median(x[x > 0])), 1.0) if np.any(x > 0) else 1e-9

    return Direct(0.5 * typical, slope(at.batch), slope(at.context), 0.1 * typical, slope(at.tokens))


def predict_linear(law: Layered, part: Linear, at: LayerPoints) -> Floats:
    """Seconds of one layer without attention."""
    return np.asarray(part.time(law.products, law.moved, law.gpu, at.tokens))


def predict_decode(law: Layered, part: Decode, at: DecodePoints) -> Floats:
    """Seconds of decode attention in one layer."""
    heads = law.shape.kv_heads_per_gpu(law.tp)
    fixed, per_token = part.line(law.token_bytes, heads, law.gpu, at.batch, at.context)
    return np.asarray(fixed + per_token * at.batch * at.context)


def predict_prefill(law: Layered, part: Prefill, at: PrefillPoints) -> Floats:
    """Seconds of prefill attention in one layer; several prompts in a call share its start."""
    heads, dim = law.shape.heads_per_gpu(law.tp), law.shape.head_dim
    one = np.asarray(part.time(heads, dim, law.token_bytes, law.gpu, at.tokens, at.prefix))
    return np.asarray(at.batch * one - (at.batch - 1.0) * part.fixed)


def predict_link(law: Layered, part: Link, at: LinkPoints) -> Floats:
    """Seconds of an all-reduce."""
    return np.asarray(part.time(at.size, law.gpu, law.tp))


def predict_direct(part: Direct, at: StepPoints) -> Floats:
    """Seconds of an engine's steps."""
    decode = part.step + part.sequence * at.batch + part.context * at.context
    read = max(part.prefill_step - part.step, 0.0) + part.prefill_token * at.tokens
    alone = part.prefill_step + part.prefill_token * at.tokens
    return np.where(at.batch > 0, decode + np.where(at.tokens > 0, read, 0.0), alone)


def as_plain(errors: Errors) -> dict[str, Any]:
    """For JSON."""
    plain = {"inside": _plain(errors.inside)}
    return plain | {"ranges": {name: _plain(held) for name, held in errors.ranges.items()}}


def _plain(held: Held) -> dict[str, float]:
    return {item.name: round(getattr(held, item.name), 5) for item in fields(held)}
