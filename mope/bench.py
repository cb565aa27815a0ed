"""How long the parts take on this machine. Numbers to report, never to test."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import numpy as np

from mope.errors import ConfigError
from mope.predictor.router import LexicalRouter
from mope.types import Request

BATCHES = (1, 32)
WARM_UP = 20


def router_latency(
    router: LexicalRouter,
    requests: Sequence[Request],
    *,
    repeats: int = 200,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Microseconds a prompt for batches of 1 and 32, features included: `batch_32_p50_us` and so on.

    `load_1m` is the machine's load average before: above its free cores, the numbers are too high.
    Raises `ConfigError` without requests.
    """
    if not requests:
        raise ConfigError("no requests to time", "at least one")
    numbers = {"load_1m": os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")}
    for size in BATCHES:
        batches = _batches(requests, size, repeats + WARM_UP)
        taken = [_seconds(router, batch, clock) for batch in batches][WARM_UP:]
        for level in (50, 99):
            numbers[f"batch_{size}_p{level}_us"] = float(np.percentile(taken, level)) * 1e6 / size
    return numbers


def _batches(requests: Sequence[Request], size: int, count: int) -> list[list[Request]]:
    """`count` batches of `size`, walking through the requests again and again."""
    n = len(requests)
    return [[requests[(i * size + j) % n] for j in range(size)] for i in range(count)]


def _seconds(router: LexicalRouter, batch: list[Request], clock: Callable[[], float]) -> float:
    start = clock()
    router.probabilities(batch)
    return clock() - start
