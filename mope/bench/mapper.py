"""How long the mapper takes for a forecast whose length is known. Numbers to report, never to test."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mope.forecast import Forecaster
from mope.mapper.metrics import Load
from mope.predictor.bundle import MoPE
from mope.types import LengthForecast, Request

HARDWARE = ("llama-2-7b@a100-80g", "llama-2-70b@8xa100-80g", "mixtral-8x7b@2xh100-sxm", "llama-2-7b@a10g")
BATCH = 1000
WARM_UP = 3
LOAD = Load(batch=16, context=800.0)


def mapper_latency(
    bundle: MoPE,
    *,
    hardware: Sequence[str] = HARDWARE,
    repeats: int = 200,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Microseconds of one forecast, and of one in a batch of 1,000, of requests in a running batch of 16.

    Keys: `NAME single_p50_us`, `NAME single_p99_us`, `NAME batched_p50_us`. Prompts of 1 to 4,000 tokens, answers of
    1 to 1,000, drawn with the seed.
    """
    rng = np.random.default_rng(seed)
    prompts = rng.integers(1, 4000, BATCH)
    lengths = np.sort(rng.integers(1, 1000, (BATCH, 3)).astype(np.float64), axis=1)
    requests = [Request("", prompt_tokens=int(n)) for n in prompts]
    known = [_known(row) for row in lengths]
    numbers: dict[str, float] = {}
    for name in hardware:
        made = Forecaster(bundle, name, load=LOAD)
        assert made.mapper is not None
        single = _each(list(zip(known, requests, strict=True)), made.of_length, clock)
        numbers[f"{name} single_p50_us"] = float(np.percentile(single, 50))
        numbers[f"{name} single_p99_us"] = float(np.percentile(single, 99))
        sizes = prompts.astype(np.float64)
        whole = _each([(sizes, lengths)] * (repeats + WARM_UP), made.mapper.columns, clock)[WARM_UP:]
        numbers[f"{name} batched_p50_us"] = float(np.percentile(whole, 50)) / BATCH
    return numbers


def _known(row: np.ndarray) -> LengthForecast:
    low, mid, high = (float(value) for value in row)
    return LengthForecast(mid, low, high, (0.1, 0.5, 0.9), (low, mid, high), "medium", (0.0, 1.0, 0.0))


def _each(
    arguments: Sequence[tuple[Any, Any]], call: Callable[..., object], clock: Callable[[], float]
) -> list[float]:
    """Microseconds of each of the calls, after three to warm up."""
    for given in arguments[:WARM_UP]:
        call(*given)
    taken = []
    for given in arguments:
        start = clock()
        call(*given)
        taken.append((clock() - start) * 1e6)
    return taken
