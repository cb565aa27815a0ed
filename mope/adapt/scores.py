"""A forecast and what came of it, as numbers in log1p(length): where online calibration starts and ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

from mope.errors import BadInput
from mope.types import LengthForecast

# exp of 20 is longer than any answer, and longer than any a forecast may be moved to.
MOST_LOG = 20.0
MOST_TOKENS = 100_000_000
# One answer may say of a forecast that it was 64 times too short or too long, and no more.
MOST_SCORE = math.log(64.0)


class Ends(NamedTuple):
    """Lower end, median and upper end of the 80 % interval, or what is added to them, in log1p(length)."""

    low: float
    mid: float
    high: float


NOTHING = Ends(0.0, 0.0, 0.0)


def log_ends(forecast: LengthForecast) -> Ends:
    """The forecast in log1p(length). Raises `BadInput` where it is no number, infinite, negative or out of order."""
    low, mid, high = forecast.low, forecast.tokens, forecast.high
    if not 0 <= low <= mid <= high < math.inf:
        raise BadInput(
            f"a forecast of {low} to {high} around {mid}", "finite tokens, 0 <= low <= tokens <= high"
        )
    return Ends(math.log1p(low), math.log1p(mid), math.log1p(high))


def log_length(length: float) -> float:
    """log1p of an answer's tokens; 0 is an empty answer. Raises `BadInput` for what no answer has."""
    known = type(length) is int or (isinstance(length, Real) and not isinstance(length, bool))
    if not known or not 0 <= length <= MOST_TOKENS:
        raise BadInput(f"a length of {_shown(length)}", f"output tokens, from 0 to {MOST_TOKENS:,}")
    return math.log1p(length)


def _shown(length: object) -> str:
    # Python refuses to write out integers of more than 4,300 digits
    return (
        f"{length.bit_length()} bits"
        if isinstance(length, int) and length > MOST_TOKENS
        else str(length)[:40]
    )


def scores(ends: Ends, truth: float) -> Ends:
    """How far the truth lies above each end, cut at `MOST_SCORE` both ways."""
    return Ends(_cut(truth - ends.low), _cut(truth - ends.mid), _cut(truth - ends.high))


def _cut(score: float) -> float:
    return -MOST_SCORE if score < -MOST_SCORE else MOST_SCORE if score > MOST_SCORE else score


def moved(forecast: LengthForecast, ends: Ends, offsets: Ends) -> LengthForecast:
    """The forecast with each end moved by its offset and the quantiles by those of the ends around them.

    Between probability 0.1, 0.5 and 0.9 the offset of a quantile runs linearly; outside it is that of the end.
    Order is kept: low <= tokens <= high, quantiles never fall. Bucket and router probabilities are left as they are.
    """
    mid = ends.mid + offsets.mid
    low, high = min(ends.low + offsets.low, mid), max(ends.high + offsets.high, mid)
    return LengthForecast(
        _tokens(mid), _tokens(low), _tokens(high), forecast.levels, _quantiles(forecast, offsets),
        forecast.bucket, forecast.probabilities,
    )  # fmt: skip


def _quantiles(forecast: LengthForecast, offsets: Ends) -> tuple[float, ...]:
    found: list[float] = []
    last = 0.0
    for level, quantile in zip(forecast.levels, forecast.quantiles, strict=True):
        last = max(last, _tokens(math.log1p(max(quantile, 0.0)) + _offset(level, offsets)))
        found.append(last)
    return tuple(found)


def _offset(level: float, offsets: Ends) -> float:
    if level <= 0.5:
        share = max(0.0, (level - 0.1) / 0.4)
        return offsets.low + share * (offsets.mid - offsets.low)
    share = min(1.0, (level - 0.5) / 0.4)
    return offsets.mid + share * (offsets.high - offsets.mid)


def _tokens(log: float) -> float:
    return math.expm1(min(log, MOST_LOG)) if log > 0 else 0.0


def blend(parent: Ends, own: Ends, weight: float) -> Ends:
    """`own` by `weight`, `parent` by the rest."""
    rest = 1.0 - weight
    return Ends(
        rest * parent.low + weight * own.low,
        rest * parent.mid + weight * own.mid,
        rest * parent.high + weight * own.high,
    )


def quantile(ordered: Sequence[float], level: float) -> float:
    """The conformal quantile of rising values [n]: at place level * (n + 1), between neighbours by share.

    A place before the first or past the last value gives that value. n is at least 1.
    """
    place = level * (len(ordered) + 1) - 1.0
    if place <= 0.0:
        return ordered[0]
    below = int(place)
    if below >= len(ordered) - 1:
        return ordered[-1]
    return ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])
