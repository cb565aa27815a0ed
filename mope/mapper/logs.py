"""From an engine's request log to points of its steps: who decoded beside whom, with how much context.

A log says of each request when its first and its last token came. Between the two it took `output - 1` steps, so the
mean step over that window is known, and so are the mean batch, its mean context and the prompt tokens that were read
in between, from the other requests of the log. Those are the points that `mope.mapper.fit.fit_direct` takes.
"""

from __future__ import annotations

import numpy as np

from mope.errors import DataError
from mope.mapper.numbers import Floats
from mope.mapper.points import RequestPoints, StepPoints

LEAST_STEPS = 8


def step_points(log: RequestPoints) -> StepPoints:
    """Mean step, batch, context and prompt tokens a step over each request's decode window.

    Requests with fewer than 8 decode steps are left out. Raises `DataError` where fewer than 10 are left.
    Time O(n log n).
    """
    times, batch, context = _integrals(log)
    steps, window = log.output_tokens - 1.0, log.last - log.first
    kept = (steps >= LEAST_STEPS) & (window > 0)
    if kept.sum() < 10:
        raise DataError(f"{kept.sum()} requests with {LEAST_STEPS} or more decode steps", "at least 10")
    first, last = log.first[kept], log.last[kept]
    steps, window = steps[kept], window[kept]

    def mean(integral: Floats) -> Floats:
        return np.asarray((np.interp(last, times, integral) - np.interp(first, times, integral)) / window)

    return StepPoints(_read_between(log, first, last) / steps, mean(batch), mean(context), window / steps)


def _integrals(log: RequestPoints) -> tuple[Floats, Floats, Floats]:
    """(event times, integral of the batch up to each, integral of its context), exact at the events."""
    window = np.maximum(log.last - log.first, 1e-12)
    growth = np.maximum(log.output_tokens - 1.0, 0.0) / window
    size = log.prompt_tokens + 1.0
    moments = np.concatenate([log.first, log.last])
    order = np.argsort(moments, kind="stable")
    times = moments[order]
    n = len(size)
    running = np.cumsum(np.concatenate([np.ones(n), -np.ones(n)])[order])
    # Context of the batch at t: sum over running requests of size + growth * (t - first) = level + slope * t.
    at_first = size - growth * log.first
    level = np.cumsum(np.concatenate([at_first, -at_first])[order])
    slope = np.cumsum(np.concatenate([growth, -growth])[order])
    wide = np.diff(times)
    middle = times[:-1] + wide / 2.0
    batch = np.concatenate([[0.0], np.cumsum(running[:-1] * wide)])
    context = np.concatenate([[0.0], np.cumsum((level[:-1] + slope[:-1] * middle) * wide)])
    return times, batch, context


def _read_between(log: RequestPoints, first: Floats, last: Floats) -> Floats:
    """Prompt tokens of requests that got their first token in (first, last]."""
    order = np.argsort(log.first, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(log.prompt_tokens[order])])
    moments = log.first[order]
    upto = np.searchsorted(moments, last, side="right")
    return np.asarray(total[upto] - total[np.searchsorted(moments, first, side="right")])
