"""How long a finished request takes to learn from. Numbers to report, never to test."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from statistics import NormalDist, median, quantiles

from mope.adapt.online import OnlineCalibrator, OnlineConfig
from mope.types import LengthForecast

BATCH = 1000  # calls a timing: a clock read costs as much as a hundredth of one
CLIENTS = 30
MODELS = 8
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)

Row = tuple[LengthForecast, int, str, str, bool]


def online_latency(
    *, repeats: int = 100, seed: int = 0, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Microseconds of one `observe` and one `correct`, means over 1,000 calls: p50 and p99 over the repeats.

    CPU time, which is wall time on an idle machine: nothing here waits. 8 models and 30 clients with full
    windows, one answer in ten capped; `clients_` is with `per_client`.
    """
    rows = _rows(random.Random(seed))
    numbers: dict[str, float] = {}
    for name, config in (("", OnlineConfig()), ("clients_", OnlineConfig(per_client=True))):
        calibrator = OnlineCalibrator(config)
        for row in rows * 8:
            calibrator.observe(*row)
        learned = [_mean_us(_observe, calibrator, rows, clock) for _ in range(repeats)]
        asked = [_mean_us(_correct, calibrator, rows, clock) for _ in range(repeats)]
        numbers |= _told(f"{name}observe", learned) | _told(f"{name}correct", asked)
    return numbers


def _rows(rng: random.Random) -> list[Row]:
    rows = []
    for _ in range(BATCH):
        told = NormalDist(rng.gauss(5.0, 0.7), 0.6)
        ends = tuple(max(0.0, math.expm1(told.inv_cdf(level))) for level in LEVELS)
        forecast = LengthForecast(ends[3], ends[1], ends[5], LEVELS, ends, "medium", (0.2, 0.6, 0.2))
        length = round(max(0.0, math.expm1(rng.gauss(told.mean + 0.3, 0.6))))
        model, client = f"model-{rng.randrange(MODELS)}", f"client-{rng.randrange(CLIENTS)}"
        rows.append((forecast, length, model, client, rng.random() < 0.1))
    return rows


def _observe(calibrator: OnlineCalibrator, row: Row) -> None:
    calibrator.observe(*row)


def _correct(calibrator: OnlineCalibrator, row: Row) -> None:
    calibrator.correct(row[0], row[2], row[3])


def _mean_us(
    call: Callable[[OnlineCalibrator, Row], None],
    calibrator: OnlineCalibrator,
    rows: Sequence[Row],
    clock: Callable[[], float],
) -> float:
    start = clock()
    for row in rows:
        call(calibrator, row)
    return (clock() - start) * 1e6 / len(rows)


def _told(name: str, taken: Sequence[float]) -> dict[str, float]:
    highest = quantiles(taken, n=100)[-1] if len(taken) > 1 else taken[0]
    return {f"{name}_p50_us": median(taken), f"{name}_p99_us": highest}
