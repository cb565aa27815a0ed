"""Prediction is advice: what the scheduler takes from a forecast, and from where when there is none.

The chain for the length: the forecast where it is finite and not negative; the client's running mean; the
prior of the deployment. For every other number: the forecast where it has it, finite and above 0; the prior.
Scheduling never waits for a forecast and never fails because of one.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import ceil, isfinite
from typing import TYPE_CHECKING

from mope.errors import ConfigError
from mope.types import Forecast, LengthForecast

if TYPE_CHECKING:
    from mope.equinox.state import Job

INFINITE = float("inf")


@dataclass(frozen=True)
class Priors:
    """What to believe of a request nobody forecast."""

    tokens: float = field(default=256.0, metadata={"help": "output tokens of a client's first request"})
    ttft_s: float = field(default=0.2, metadata={"help": "seconds of a prefill"})
    tpot_s: float = field(default=0.03, metadata={"help": "seconds for each output token"})
    gpu_util: float = field(default=0.5, metadata={"help": "share of the hardware, in [0, 1]"})
    quantile: float = field(default=0.9, metadata={"help": "quantile of the length KV memory is kept for"})
    spare: float = field(
        default=1.5, metadata={"help": "KV memory for a length without quantiles: times this"}
    )
    keep: float = field(default=0.8, metadata={"help": "weight of the past in the running mean; VTC: 4/5"})
    longest: int = field(
        default=131_072, metadata={"help": "output tokens no prediction or usage may exceed"}
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (isfinite(value) and value >= 0):
                raise ConfigError(f"priors: {item.name}={value}", "a finite number, not negative")
        if not (self.gpu_util <= 1 and self.quantile <= 1 and self.keep < 1):
            raise ConfigError(f"priors: {self}", "gpu_util and quantile up to 1, keep below 1")
        if self.tpot_s == 0 or self.spare < 1 or self.longest < 1:
            raise ConfigError(f"priors: {self}", "tpot_s above 0, spare and longest from 1")

    @cached_property
    def rate(self) -> float:
        """Output tokens per second."""
        return 1 / self.tpot_s


def advise(job: Job, forecast: Forecast | None, priors: Priors) -> None:
    """Have `job` believe of itself what its forecast says, or what the next link of the chain does.

    Tokens are clamped to `max_tokens` where the request has it, else to `priors.longest`.
    """
    most = job.request.max_tokens
    most = priors.longest if most is None else min(most, priors.longest)
    tokens = -1.0 if forecast is None else forecast.length.tokens
    job.foreseen = forecast is not None and 0 <= tokens < INFINITE
    if forecast is not None and job.foreseen:
        reserve = _quantile(forecast.length, priors)
    else:
        mean = job.account.mean
        tokens = priors.tokens if mean is None else mean
        reserve = tokens * priors.spare
    if reserve > most or tokens > most:
        tokens, reserve = min(tokens, most), most
    job.tokens = tokens
    job.reserve = job.prompt_tokens + ceil(max(reserve, tokens, job.served + 1))
    job.service_s, job.rate, job.util = priors.ttft_s + priors.tpot_s * tokens, priors.rate, priors.gpu_util
    if forecast is not None:
        if forecast.tpot_s or forecast.latency_s or forecast.ttft_s or forecast.tokens_per_s:
            job.service_s, job.rate = _service(forecast, tokens, priors)
        if forecast.gpu_util is not None:
            job.util = min(_above(forecast.gpu_util, priors.gpu_util), 1.0)


def _service(forecast: Forecast, tokens: float, priors: Priors) -> tuple[float, float]:
    """Seconds of service and output tokens per second, each from the forecast where it says so."""
    tpot_s = priors.tpot_s if forecast.tpot_s is None else _above(forecast.tpot_s.value, priors.tpot_s)
    service_s = _above(forecast.ttft_s, priors.ttft_s) + tpot_s * tokens
    if forecast.latency_s is not None:
        service_s = _above(forecast.latency_s.value, service_s)
    rate = 1 / tpot_s
    if forecast.tokens_per_s is not None:
        rate = _above(forecast.tokens_per_s.value, rate)
    return service_s, rate


def _above(value: float | None, otherwise: float) -> float:
    """`value` where it is finite and above zero."""
    return value if value is not None and 0 < value < INFINITE else otherwise


def _quantile(length: LengthForecast, priors: Priors) -> float:
    """The forecast at the first level from `priors.quantile` up; `spare` times the median without any."""
    levels, quantiles = length.levels, length.quantiles
    if levels and len(levels) == len(quantiles):
        place = bisect_left(levels, priors.quantile)
        value = quantiles[place if place < len(levels) else -1]
        if 0 <= value < INFINITE:
            return value
    return length.tokens * priors.spare


def running_mean(mean: float | None, output_tokens: int, keep: float) -> float:
    """m' = keep m + (1 - keep) y; the first y sets it. With keep = 4/5, VTC's window of five."""
    return float(output_tokens) if mean is None else keep * mean + (1 - keep) * output_tokens
