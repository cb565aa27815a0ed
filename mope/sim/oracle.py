"""The only place where the truth becomes a forecast: exact, with a set error, or not at all.

A scheduler never sees a true length before its last token exists, unless its policy says that it is an oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np
from numpy.typing import NDArray

from mope.errors import ConfigError
from mope.mapper.metrics import Load, Mapper
from mope.mapper.profile import Profile
from mope.sim.sequence import Sequence
from mope.types import Forecast, LengthForecast, Span

LEVELS = (0.1, 0.5, 0.9)
NO_SHARES = (0.0, 0.0, 0.0)
DRAWN = 4096
TAIL = log(5.0)  # the 90 % point of a Laplace distribution of scale 1
GRAIN = 16  # tokens by which sizes are told apart in hardware forecasts
KINDS = "exact, none, noise:TOKENS (mean absolute error) or noise:PERCENT%"
Guess = tuple[float, float, float]  # median, 10 % and 90 % points
Shares = tuple[Span, Span, float]  # seconds of service, output tokens a second, utilisation in [0, 1]


class Draws:
    """Random numbers one at a time from a generator that is faster in blocks."""

    def __init__(self, seed: int, block: Callable[[np.random.Generator, int], NDArray[np.float64]]) -> None:
        self._rng = np.random.default_rng(seed)
        self._block = block
        self._left: list[float] = []

    def next(self) -> float:
        """The next number."""
        if not self._left:
            self._left = self._block(self._rng, DRAWN).tolist()[::-1]
        return self._left.pop()


class Oracle:
    """Forecasts of requests by a predictor given in one word; see `KINDS`. `error` sums |forecast - truth|.

    `noise:80` is the truth plus Laplace noise of mean size 80, never below 1 token; `noise:50%` is even between
    half and one and a half of the truth, as VTC's `pred 50`. Raises `ConfigError` on other words.
    """

    def __init__(self, predictor: str, profile: Profile, seed: int = 0, truth: bool = False) -> None:
        kind, _, size = predictor.partition(":")
        self.kind = "exact" if truth else kind
        self.error, self.count = 0.0, 0
        if kind not in ("exact", "none", "noise") or (kind == "noise") != bool(size):
            raise ConfigError(f"predictor {predictor!r}", KINDS)
        self._relative = size.endswith("%")
        self._size = _number(size.rstrip("%"), predictor) / (100 if self._relative else 1) if size else 0.0
        self._draws = Draws(seed, _even if self._relative else _laplace)
        self._hardware = Hardware(profile)

    def forecast(self, seq: Sequence) -> Forecast | None:
        """What the predictor says of a request."""
        if self.kind == "none":
            return None
        truth = float(seq.output)
        value, low, high = self._guess(truth)
        self.count += 1
        self.error += abs(value - truth)
        return self._hardware.forecast(seq.prompt, value, low, high)

    def util(self, seq: Sequence) -> float:
        """The share of the hardware that a request of this size really took, by the mapper."""
        return self._hardware.shares(seq.prompt, seq.made)[2]

    @property
    def mae(self) -> float | None:
        """Mean absolute error of the forecasts so far, in tokens."""
        return self.error / self.count if self.count else None

    def _guess(self, truth: float) -> Guess:
        size, kind = self._size, self.kind
        if kind == "exact":
            return truth, truth, truth
        if self._relative:
            value = max(truth * (1 + size * self._draws.next()), 1.0)
            part = min(0.8 * size, 0.95)
            return value, value / (1 + part), value / (1 - part)
        value = max(truth + size * self._draws.next(), 1.0)
        return value, max(value - TAIL * size, 1.0), value + TAIL * size


class Hardware:
    """Times and utilisation of a request of given size beside a typical batch; worked out once for each size."""

    def __init__(self, profile: Profile, typical: int = 512) -> None:
        batch = int(max(1.0, min(256.0, 0.8 * profile.kv_tokens / typical)))
        self._mapper = Mapper(profile, Load(batch, 0.75 * typical, max(2048, 2 * batch)))
        self._known: dict[tuple[int, int], Shares] = {}

    def shares(self, prompt: int, output: float) -> Shares:
        """What a request of about this size takes."""
        key = prompt // GRAIN, int(output) // GRAIN
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._work_out(key[0] * GRAIN + GRAIN / 2, key[1] * GRAIN + GRAIN / 2)
        return found

    def _work_out(self, prompt: float, output: float) -> Shares:
        times = self._mapper.times(prompt, output)
        latency = float(times.latency)
        rate, util = output / latency, float(self._mapper.shares(prompt, output, times).gpu_util)
        return Span(latency, latency, latency), Span(rate, rate, rate), util

    def forecast(self, prompt: int, value: float, low: float, high: float) -> Forecast:
        """A forecast of length and of what follows from it."""
        latency_s, rate, util = self.shares(prompt, value)
        length = LengthForecast(value, low, high, LEVELS, (low, value, high), "", NO_SHARES)
        return Forecast(length, prompt, latency_s=latency_s, tokens_per_s=rate, gpu_util=util)


def _number(text: str, predictor: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise ConfigError(f"predictor {predictor!r}", KINDS)
    return value


def _laplace(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    return rng.laplace(0.0, 1.0, count)


def _even(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    return rng.uniform(-1.0, 1.0, count)
