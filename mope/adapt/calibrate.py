"""`calibrate`: a short log of one served model into an overlay, or a refusal with its reason. Read top to bottom.

Every part is fitted five times, each time without a fifth of the conversations, and what is said of a fifth comes
from the fit that did not see it. On those forecasts the spread and the ends of the interval are fitted, and on them
the overlay is compared with the bundle as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.adapt.correction import fit_ridge, fit_rising, fit_router, fit_spread, unseen
from mope.adapt.ends import fit_ends
from mope.adapt.observed import Observed, as_asked, observe
from mope.adapt.standin import nearest
from mope.data.records import LengthData
from mope.errors import DataError, MopeError
from mope.evaluation.bootstrap import Difference, Draws, Groups, Interval, mean_intervals, paired_difference
from mope.evaluation.metrics import absolute_error, covered, log_error, pinball
from mope.predictor.bundle import Column, MoPE
from mope.predictor.mixture import routed
from mope.predictor.overlay import Overlay, basis
from mope.predictor.overlays import identity

LEAST = 20  # conversations in a log
FloatArray = NDArray[np.float64]


class NoGain(MopeError):
    """The overlay would not be better than the bundle as it is: nothing was written."""


@dataclass(frozen=True)
class Report:
    """What was seen on the fifths of the log that a fit had not seen.

    `before` and `after` hold the mean absolute error in tokens, the error of log1p(length), the pinball loss and the
    coverage of the 80 % interval; `difference` is that of the errors in tokens, paired, over conversations.
    """

    answers: int
    conversations: int
    cut: int
    before: Mapping[str, Interval]
    after: Mapping[str, Interval]
    difference: Difference

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ends that are not known are None."""
        sides = {
            side: {name: _plain(value) for name, value in values.items()}
            for side, values in (("before", self.before), ("after", self.after))
        }
        counts = {"answers": self.answers, "conversations": self.conversations, "cut": self.cut}
        return {**counts, **sides, "difference": _plain(self.difference)}


def calibrate(bundle: MoPE, data: LengthData, model: str, seed: int = 0) -> tuple[Overlay, Report]:
    """An overlay for `model` from answers it gave, and what it is worth on parts of the log it was not fitted on.

    `seed` draws the resamples of the report's intervals; the overlay does not depend on it, nor on the order of the
    log. Raises `DataError` for a log that is too short, `NoGain` where the overlay does not err less than the bundle.
    """
    found = len(set(data.groups))
    if found < LEAST:
        raise DataError(
            f"answers to {found} prompts of {model!r}", f"at least {LEAST}, better 50", "log more of them"
        )
    own = as_asked(model, bundle.config)
    plain = observe(bundle, data.examples, own)
    reads_as = nearest(bundle, data.examples, own)
    seen = plain if reads_as == own else observe(bundle, data.examples, reads_as)
    stand_in = "" if reads_as == own else reads_as
    start = Overlay(model, identity(bundle.folder, bundle.config), len(plain), stand_in)
    overlay, held_out = fit(bundle, seen, start)
    report = compare(bundle, plain, held_out, Draws(seed=seed))
    refuse_worse(model, report)
    return replace(overlay, facts=report.to_dict()), report


def fit(bundle: MoPE, seen: Observed, start: Overlay) -> tuple[Overlay, Column]:
    """`start` with every part fitted on `seen`, and forecasts of each answer by a fit that had not seen it."""
    parts = {k: located(bundle, seen.take(seen.fold != k), start) for k in np.unique(seen.fold)}
    logs, chances = said(bundle, seen, start)
    for k, part in parts.items():
        logs[seen.fold == k], chances[seen.fold == k] = said(bundle, seen.take(seen.fold == k), part)
    levels = bundle.config.quantiles
    spread = fit_spread(logs, seen.truth, seen.cut, seen.weight, levels)
    median = logs[:, [levels.index(0.5)]]
    ends = _Ends(bundle, seen, median + spread * (logs - median), chances.argmax(1))
    column = forecasts(bundle, seen, start)
    for k, part in parts.items():
        here = seen.fold == k
        tested = replace(part, spread=spread, ends=ends.of(~here))
        column = column.put(np.flatnonzero(here), forecasts(bundle, seen.take(here), tested))
    whole = located(bundle, seen, start)
    return replace(whole, spread=spread, ends=ends.of(np.ones(len(seen), np.bool_))), column


def located(bundle: MoPE, seen: Observed, start: Overlay) -> Overlay:
    """`start` with the parts that move the median: router, rising function, ridge; each held to none by its size.

    The router's shift stays out where the rising function alone errs less on folds it was not fitted on.
    """
    levels = bundle.config.quantiles
    error = dict.fromkeys((False, True), 0.0)
    for k in np.unique(seen.fold):
        others, here = seen.take(seen.fold != k), seen.take(seen.fold == k)
        for moves in error:
            off = _rest(bundle, here, _curved(bundle, others, start, moves))
            error[moves] += float((here.weight * np.abs(off)).sum())
    overlay = _curved(bundle, seen, start, error[True] < error[False])
    rest = _rest(bundle, seen, overlay)
    rows = basis(seen.features, seen.experts, seen.chances, levels)
    return replace(overlay, ridge=fit_ridge(rows, rest, seen.weight, seen.fold))


def _curved(bundle: MoPE, seen: Observed, start: Overlay, moves: bool) -> Overlay:
    """`start` with the rising function, on top of the router's shift where it `moves`."""
    if moves:
        bucket = bundle.config.bounds.bucket(seen.lengths)
        start = replace(start, router=fit_router(seen.chances, bucket, seen.cut, seen.weight))
    middle = said(bundle, seen, start)[0][:, bundle.config.quantiles.index(0.5)]
    knots, slope = fit_rising(middle, seen.truth, seen.cut, seen.weight)
    return replace(start, knots=knots, slope=slope)


def _rest(bundle: MoPE, seen: Observed, overlay: Overlay) -> FloatArray:
    """What the overlay's median leaves of log1p(length), [n]; nothing where a cut answer is below it."""
    middle = said(bundle, seen, overlay)[0][:, bundle.config.quantiles.index(0.5)]
    return unseen(seen.truth, seen.cut, middle) - middle


def said(bundle: MoPE, seen: Observed, overlay: Overlay) -> tuple[FloatArray, FloatArray]:
    """Log quantiles [n, K] and chances of the buckets [n, 3] as the overlay has them."""
    levels, chances = bundle.config.quantiles, overlay.chances(seen.chances)
    logs = routed(bundle.config.routing, seen.experts, chances, levels)
    read = basis(seen.features, seen.experts, seen.chances, levels)
    return overlay.logs(logs, read, levels.index(0.5)).copy(), chances.copy()


def forecasts(bundle: MoPE, seen: Observed, overlay: Overlay) -> Column:
    """Forecasts in tokens of every answer's request."""
    return bundle.adapted(overlay, bundle.config.routing, seen.features, seen.experts, seen.chances)


@dataclass(frozen=True, eq=False)
class _Ends:
    """Log quantiles [n, K] of forecasts, predicted buckets [n], and what moves their intervals."""

    bundle: MoPE
    seen: Observed
    logs: FloatArray
    bucket: NDArray[np.int64]

    def of(self, rows: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
        """The moves that some of the answers ask for."""
        config, seen, bucket = self.bundle.config, self.seen.take(rows), self.bucket[rows]
        low, high = self.bundle.calibration.ends(config.routing, bucket, self.logs[rows], config.quantiles)
        return fit_ends(low, high, seen.truth, seen.cut, seen.weight, bucket)


def compare(bundle: MoPE, plain: Observed, after: Column, draws: Draws) -> Report:
    """The bundle as it is beside forecasts by fits that had not seen the answers."""
    groups = Groups.of(plain.group)
    before = errors(bundle, plain, forecasts(bundle, plain, Overlay("the bundle")))
    other = errors(bundle, plain, after)
    return Report(
        len(plain), groups.count, int(plain.cut.sum()),
        mean_intervals(before, plain.weight, groups, draws), mean_intervals(other, plain.weight, groups, draws),
        paired_difference(other["mae"], before["mae"], plain.weight, groups, draws),
    )  # fmt: skip


def errors(bundle: MoPE, seen: Observed, column: Column) -> dict[str, FloatArray]:
    """Each answer's errors, [n]; a forecast above the limit that cut an answer is not wrong."""
    assert column.quantiles is not None
    limit, truth = np.expm1(seen.limit), seen.lengths
    tokens = np.minimum(column.tokens, limit)
    quantiles = np.minimum(column.quantiles, limit[:, None])
    return {
        "mae": absolute_error(truth, tokens),
        "log_mae": log_error(truth, tokens),
        "pinball": pinball(truth, quantiles, bundle.config.quantiles),
        "coverage": covered(truth, np.asarray(column.low) - 1e-6, np.asarray(column.high) + 1e-6),
    }


def refuse_worse(model: str, report: Report) -> None:
    """Raise `NoGain` unless the overlay erred less on what it had not seen."""
    d = report.difference
    if d.value < 0:
        return
    raise NoGain(
        f"no overlay for {model!r}: on parts of the log it was not fitted on it errs by "
        f"{report.after['mae'].value:.1f} tokens and the bundle as it is by {report.before['mae'].value:.1f} "
        f"(difference {d.value:+.1f} [{d.low:+.1f}, {d.high:+.1f}], {report.conversations} prompts); nothing was "
        "written. Use the bundle as it is, or give a longer log"
    )


def _plain(value: Interval | Difference) -> dict[str, float | None]:
    return {name: float(x) if np.isfinite(x) else None for name, x in asdict(value).items()}
