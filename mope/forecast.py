"""Predictor and mapper together: from a request to tokens, seconds, utilisation, KV blocks and money."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from mope.chat import estimate_tokens
from mope.mapper.gpus import Gpu
from mope.mapper.metrics import Load, Mapper, span
from mope.mapper.prices import Price, PriceList
from mope.mapper.profile import Profile
from mope.predictor.bundle import MoPE
from mope.totals import limits
from mope.types import Forecast, LengthForecast, Request, Span

FloatArray = NDArray[np.float64]
HOUR = 3600.0


class Forecaster:
    """What a request will cost, before it runs.

    `bundle` is a `MoPE`, a folder or a Hub id; None is the bundle that ships. `hardware` is a profile or its name
    (`llama-2-7b@a100-80g`), `prices` a price or the name of a hosted model in the list that ships. Without prices,
    money is `usd_per_gpu_hour` (by default the GPU's usual price, where known) times the GPU-seconds. `load` is the
    running batch that requests join. Raises `ConfigError` for unknown names, with the nearest ones.
    """

    def __init__(
        self,
        bundle: MoPE | str | None = None,
        hardware: Profile | str | None = None,
        prices: Price | str | None = None,
        *,
        load: Load | None = None,
        usd_per_gpu_hour: float | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, MoPE) else MoPE.from_pretrained(bundle)
        profile = Profile.load(hardware) if isinstance(hardware, str) else hardware
        self.mapper = None if profile is None else Mapper(profile, load)
        self.price = PriceList.load().price(prices) if isinstance(prices, str) else prices
        self.usd_per_gpu_s = _hourly(profile.gpu if profile else None, usd_per_gpu_hour) / HOUR

    @overload
    def forecast(self, requests: str | Request) -> Forecast: ...  # type: ignore[overload-overlap]
    @overload
    def forecast(self, requests: Sequence[str | Request]) -> list[Forecast]: ...
    def forecast(self, requests: str | Request | Sequence[str | Request]) -> Forecast | list[Forecast]:
        """Forecast one prompt or request, or a list of them, in order.

        Raises `PromptError` naming the place of a prompt that cannot be read.
        """
        if isinstance(requests, (str, Request)):
            return self.forecast([requests])[0]
        asked = [Request(prompt=item) if isinstance(item, str) else item for item in requests]
        lengths = self.bundle.predict(asked)
        return [self.of_length(length, request) for request, length in zip(asked, lengths, strict=True)]

    def of_length(self, length: LengthForecast, request: Request) -> Forecast:
        """The forecast of a request whose length was predicted, by this bundle or anyone else."""
        prompt = prompt_tokens(request)
        most = float(request.max_tokens) if request.max_tokens else float("inf")
        tokens = (min(length.low, most), min(length.tokens, most), min(length.high, most))
        if self.mapper is None:
            return Forecast(length, prompt, cost=self._money(prompt, tokens, None), currency=self._currency)
        return self._mapped(self.mapper, length, prompt, tokens)

    def _mapped(
        self, mapper: Mapper, length: LengthForecast, prompt: int, tokens: tuple[float, float, float]
    ) -> Forecast:
        # Written out for the three lengths: this runs for every request, and a loop over three costs as much again.
        profile, size, spread = mapper.profile, float(prompt), mapper.profile.spread
        low, mid, high = tokens
        ttft = mapper.prefill(size)
        short, times, long = (
            mapper.times(size, low, ttft),
            mapper.times(size, mid, ttft),
            mapper.times(size, high, ttft),
        )
        fast, latency, slow = short.latency, times.latency, long.latency
        added = mapper.added(size, ttft)
        gpu_s = span(
            mapper.gpu_seconds(short, added),
            mapper.gpu_seconds(times, added),
            mapper.gpu_seconds(long, added),
            spread,
        )
        token = profile.kv_bytes_per_token
        return Forecast(
            length,
            prompt,
            profile.name,
            profile.calibrated,
            ttft,  # type: ignore[arg-type]
            span(short.tpot, times.tpot, long.tpot, spread),
            span(fast, latency, slow, spread),
            span(low / fast, mid / latency, high / slow, spread),
            *mapper.shares(size, mid, times),  # type: ignore[arg-type]
            Span(mapper.blocks(size + mid), mapper.blocks(size + low), mapper.blocks(size + high)),  # type: ignore[arg-type]
            Span((size + mid) * token, (size + low) * token, (size + high) * token),
            gpu_s,
            self._money(prompt, tokens, gpu_s),
            self._currency,
        )

    @property
    def _currency(self) -> str:
        return self.price.currency if self.price else "USD"

    def _money(self, prompt: int, tokens: tuple[float, float, float], gpu_s: Span | None) -> Span | None:
        """By the token where there is a price, else by the GPU-second where that is known."""
        if self.price is not None:
            low, mid, high = (float(self.price.cost(float(prompt), n)) for n in tokens)
            return Span(mid, low, high)
        if gpu_s is None or not self.usd_per_gpu_s:
            return None
        return Span(*(self.usd_per_gpu_s * value for value in gpu_s))

    def columns(self, requests: Sequence[Request]) -> dict[str, FloatArray]:
        """Forecasts of n requests as arrays [n]: tokens, low, high, prompt_tokens, then `Mapper.columns`, cost.

        For large files: the mapper takes well under a microsecond a request this way.
        """
        return self.length_columns(requests, self.bundle.predict(list(requests)))

    def length_columns(
        self, requests: Sequence[Request], found: Sequence[LengthForecast]
    ) -> dict[str, FloatArray]:
        """`columns` of requests whose lengths were predicted, by this bundle or anyone else."""
        prompt = np.array([prompt_tokens(request) for request in requests], np.float64)
        lengths = np.array([(item.low, item.tokens, item.high) for item in found], np.float64).reshape(-1, 3)
        lengths = np.minimum(lengths, limits(requests)[:, None])
        low, tokens, high = lengths.T
        table = {"tokens": tokens, "low": low, "high": high, "prompt_tokens": prompt}
        if self.mapper is not None:
            table |= self.mapper.columns(prompt, lengths)
        return table | self._money_columns(table)

    def _money_columns(self, table: dict[str, FloatArray]) -> dict[str, FloatArray]:
        if self.price is not None:
            each = (("cost", "tokens"), ("cost_low", "low"), ("cost_high", "high"))
            return {name: self.price.cost(table["prompt_tokens"], table[of]) for name, of in each}
        if "gpu_s" not in table or not self.usd_per_gpu_s:
            return {}
        return {f"cost{end}": self.usd_per_gpu_s * table[f"gpu_s{end}"] for end in ("", "_low", "_high")}


def _hourly(gpu: Gpu | None, given: float | None) -> float:
    if given is not None:
        return given
    return (gpu.usd_per_hour or 0.0) if gpu else 0.0


def prompt_tokens(request: Request) -> int:
    """Tokens that the engine reads: as given, else by rule of thumb from the prompt and what stands before it."""
    if request.prompt_tokens is not None:
        return max(1, request.prompt_tokens)
    return estimate_tokens(request.prompt) + (request.history.tokens or 0)
