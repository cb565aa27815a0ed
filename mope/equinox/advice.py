"""Prediction is advice: what the scheduler takes from a forecast, and from where when there is none.

The chain, for each number on its own: the forecast where it is finite and not negative; the client's
running mean of output tokens; the prior of the deployment. Scheduling never waits and never fails for it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import NamedTuple

from mope.errors import ConfigError
from mope.types import Forecast, LengthForecast, Request, Span

INFINITE = float("inf")


class Advice(NamedTuple):
    """What is believed of one request before it runs.

    `tokens` output tokens expected, `reserve` output tokens to keep KV memory for, `service_s` seconds from
    prefill to last token, `rate` output tokens per second, `util` share of the hardware in [0, 1],
    `source` forecast, mean or prior: where `tokens` is from.
    """

    tokens: float
    reserve: float
    service_s: float
    rate: float
    util: float
    source: str


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


def advise(request: Request, forecast: Forecast | None, mean: float | None, priors: Priors) -> Advice:
    """The advice on `request`: each number from the first link of the chain that has it.

    Tokens are clamped to `max_tokens` where the request has it, else to `priors.longest`.
    """
    most = priors.longest if request.max_tokens is None else min(request.max_tokens, priors.longest)
    length = None if forecast is None else forecast.length
    if length is not None and 0 <= length.tokens < INFINITE:
        tokens, source = min(length.tokens, most), "forecast"
        reserve = min(max(_quantile(length, priors), tokens), most)
    else:
        believed, source = (priors.tokens, "prior") if mean is None else (mean, "mean")
        tokens = min(believed, most)
        reserve = min(believed * priors.spare, most)
    if forecast is None:
        service_s = priors.ttft_s + priors.tpot_s * tokens
        return Advice(tokens, reserve, service_s, 1 / priors.tpot_s, priors.gpu_util, source)
    tpot_s = _above(_value(forecast.tpot_s), priors.tpot_s)
    latency_s = _above(_value(forecast.latency_s), 0.0)
    if not latency_s:
        latency_s = _above(forecast.ttft_s, priors.ttft_s) + tpot_s * tokens
    rate = _above(_value(forecast.tokens_per_s), 1 / tpot_s)
    util = min(_above(forecast.gpu_util, priors.gpu_util), 1.0)
    return Advice(tokens, reserve, latency_s, rate, util, source)


def _value(span: Span | None) -> float | None:
    return None if span is None else span.value


def _above(value: float | None, otherwise: float) -> float:
    """`value` where it is finite and above zero."""
    return value if value is not None and 0 < value < INFINITE else otherwise


def _quantile(length: LengthForecast, priors: Priors) -> float:
    """The forecast at the first level from `priors.quantile` up; `spare` times the median without any."""
    levels = length.levels
    if levels and len(levels) == len(length.quantiles):
        value = length.quantiles[min(bisect_left(levels, priors.quantile), len(levels) - 1)]
        if 0 <= value < INFINITE:
            return value
    return length.tokens * priors.spare


def running_mean(mean: float | None, output_tokens: int, keep: float) -> float:
    """m' = keep m + (1 - keep) y; the first y sets it. With keep = 4/5, VTC's window of five."""
    return float(output_tokens) if mean is None else keep * mean + (1 - keep) * output_tokens
