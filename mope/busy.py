"""What a file of prompts takes of own hardware: GPU-seconds with 80 % intervals, by the mapper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.mapper.metrics import Load, Mapper
from mope.mapper.profile import Profile
from mope.totals import HIGH, Curves, length_logs, limits, span
from mope.types import LengthForecast, Request, Span

FloatArray = NDArray[np.float64]
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Busy:
    """What a file of requests takes of own hardware, at `batch` requests at a time.

    `engine_s` are seconds from first to last where the engine is kept at that batch, `gpu_s` those of all its GPUs
    together; `cost` is their price, where one is known.
    """

    hardware: str
    calibrated: bool
    batch: int
    gpu_s: Span
    engine_s: Span
    usd_per_gpu_hour: float | None
    cost: Span | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        spans = {"gpu_s": self.gpu_s, "engine_s": self.engine_s, "cost": self.cost}
        return asdict(self) | {name: value and value._asdict() for name, value in spans.items()}


def busy(profile: Profile, gpu_ms: FloatArray, batch: int, usd_per_gpu_hour: float | None, seed: int) -> Busy:
    """From drawn totals [draws] at one profile; without a price of your own, the GPU's usual one.

    The error of a profile is one for the whole file; its 80 % interval reaches `spread` each way, in logarithms.
    """
    error = np.random.default_rng((seed, 2)).standard_normal(len(gpu_ms)) / NormalDist().inv_cdf(HIGH)
    gpu_s = gpu_ms / 1e3 * np.exp(error * profile.spread)
    hourly = profile.gpu.usd_per_hour if usd_per_gpu_hour is None else usd_per_gpu_hour
    cost = None if hourly is None else span(gpu_s * hourly / HOUR)
    whole = span(gpu_s), span(gpu_s / profile.tp)
    return Busy(profile.name, profile.calibrated, batch, *whole, hourly, cost)


def busy_curves(
    profile: Profile,
    batch: int,
    prompt: FloatArray,
    forecasts: Sequence[LengthForecast],
    requests: Sequence[Request],
) -> Curves:
    """GPU-milliseconds of each request as curves, by the mapper at each quantile of its length.

    The others of the batch hold what these requests hold in the middle of their answers, on average.
    """
    most = limits(requests)
    lengths = np.minimum(np.expm1(length_logs(forecasts)), most[:, None])
    middle = prompt + lengths[:, lengths.shape[1] // 2] / 2
    mapper = Mapper(profile, Load(batch=batch, context=float(middle.mean()) if batch > 1 else 0.0))
    bounded = np.isfinite(most)
    ends = np.full(len(prompt), np.inf)
    ends[bounded] = _gpu_ms(mapper, prompt[bounded], most[bounded, None])[:, 0]
    return Curves.of(forecasts[0].levels, np.log1p(_gpu_ms(mapper, prompt, lengths)), ends)


def _gpu_ms(mapper: Mapper, prompt: FloatArray, lengths: FloatArray) -> FloatArray:
    """Of n prompts at k lengths each, [n, k]."""
    size = np.repeat(prompt, lengths.shape[1])
    times = mapper.times(size, lengths.ravel())
    taken = np.asarray(mapper.gpu_seconds(times, mapper.added(size, times.ttft)))
    return taken.reshape(lengths.shape) * 1e3
