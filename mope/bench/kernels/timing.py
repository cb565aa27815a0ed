"""Calls timed side by side: in turns, so that a busy minute hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Budget:
    """At most `repeats` rounds and `seconds` for all calls of a case; a call above `slow_s` is not repeated."""

    repeats: int = 50
    seconds: float = 30.0
    slow_s: float = 4.0


def in_turns(
    calls: Mapping[str, Call],
    budget: Budget,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.thread_time,
) -> dict[str, dict[str, float]]:
    """Milliseconds of each call: p50_ms, p99_ms, least_ms, cpu_p50_ms and calls, after one call of each to warm up.

    `cpu_p50_ms` is the calling thread's own time, which other programs on the machine do not lengthen: on one
    thread and no GPU, all of the work. A call that is slow when it is warm is timed that once.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    waiting = dict(calls)

    def spend(call: Call) -> tuple[float, float]:
        start, cpu = clock(), cpu_clock()
        call()
        return clock() - start, cpu_clock() - cpu

    for name, call in calls.items():
        call()
        spent = spend(call)
        if spent[0] > budget.slow_s:
            taken[name].append(spent)
            del waiting[name]
    end = clock() + budget.seconds
    for turn in range(budget.repeats):
        if turn and clock() > end:
            break
        for name, call in waiting.items():
            taken[name].append(spend(call))
    return {
        name: summary([wall for wall, _ in values])
        | {"cpu_p50_ms": round(float(np.median([cpu for _, cpu in values])) * 1e3, 4)}
        for name, values in taken.items()
    }


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """p50_ms, p99_ms, least_ms and the number of calls."""
    ms = np.array(seconds) * 1e3
    return {
        "p50_ms": round(float(np.percentile(ms, 50)), 4),
        "p99_ms": round(float(np.percentile(ms, 99)), 4),
        "least_ms": round(float(ms.min()), 4),
        "calls": len(seconds),
    }
