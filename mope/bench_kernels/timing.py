"""Calls timed side by side: in turns, so that a busy minute hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]


@dataclass(frozen=True)
class Budget:
    """At most `repeats` rounds and `seconds` for all calls of a case; a call above `slow_s` is not repeated."""

    repeats: int = 50
    seconds: float = 20.0
    slow_s: float = 4.0


def in_turns(
    calls: Mapping[str, Call], budget: Budget, clock: Callable[[], float] = time.perf_counter
) -> dict[str, dict[str, float]]:
    """Milliseconds of each call: p50_ms, p99_ms, least_ms and calls, after two calls of each to warm up.

    A call that is slow when it is warm is timed that once.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    waiting = dict(calls)
    for name, call in calls.items():
        call()
        spent = _seconds(call, clock)
        if spent > budget.slow_s:
            taken[name].append(spent)
            del waiting[name]
    end = clock() + budget.seconds
    for turn in range(budget.repeats):
        if turn and clock() > end:
            break
        for name, call in waiting.items():
            taken[name].append(_seconds(call, clock))
    return {name: summary(values) for name, values in taken.items()}


def summary(seconds: list[float]) -> dict[str, float]:
    """p50_ms, p99_ms, least_ms and the number of calls."""
    ms = np.array(seconds) * 1e3
    return {
        "p50_ms": round(float(np.percentile(ms, 50)), 4),
        "p99_ms": round(float(np.percentile(ms, 99)), 4),
        "least_ms": round(float(ms.min()), 4),
        "calls": len(seconds),
    }


def _seconds(call: Call, clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start
