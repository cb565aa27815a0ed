"""How long the parts take on this machine. Numbers to report, never to test."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from mope.errors import ConfigError
from mope.machine import load_1m
from mope.predictor.bundle import MoPE
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
    numbers = {"load_1m": load_1m()}
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


def predictor_latency(
    bundle: MoPE,
    requests: Sequence[Request],
    *,
    repeats: int = 100,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Milliseconds a call of `predict` for batches of 1 and 32: `batch_1_p50_ms` and so on."""
    if not requests:
        raise ConfigError("no requests to time", "at least one")
    numbers: dict[str, float] = {}
    for size in BATCHES:
        taken = []
        for batch in _batches(requests, size, repeats + WARM_UP):
            start = clock()
            bundle.predict(batch)
            taken.append(clock() - start)
        for level in (50, 99):
            numbers[f"batch_{size}_p{level}_ms"] = float(np.percentile(taken[WARM_UP:], level)) * 1e3
    return numbers


def cold_start(source: str | None, prompt: str = "Explain quicksort", repeats: int = 5) -> dict[str, float]:
    """Seconds from starting Python to the first forecast, and to `import mope`, each in a fresh process."""
    load = f"from mope import MoPE; MoPE.from_pretrained({source!r}).predict({prompt!r})"
    return {"cold_predict_s": _fresh(load, repeats), "import_mope_s": _fresh("import mope", repeats)}


def _fresh(code: str, repeats: int) -> float:
    """Median wall time of `python -c code`, less that of an empty program; the first run only warms the disk."""

    def once(program: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return time.perf_counter() - start

    full, empty = ([once(program) for _ in range(repeats + 1)][1:] for program in (code, "pass"))
    return float(np.median(full) - np.median(empty))
