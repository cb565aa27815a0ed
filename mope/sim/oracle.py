"""The only place where the truth becomes a forecast: exact, with a set error, or not at all.

A scheduler never sees a true length before its last token exists, unless its policy says that it is an oracle.
"""

from __future__ import annotations

from mope.mapper.metrics import Load, Mapper
from mope.mapper.profile import Profile
from mope.sim.guesses import make_guess
from mope.sim.sequence import Sequence
from mope.types import Forecast, LengthForecast, Span

GRAIN = 16  # tokens by which sizes are told apart in hardware forecasts
Shares = tuple[Span, Span, float]  # seconds of service, output tokens a second, utilisation in [0, 1]


class Oracle:
    """Forecasts of requests by a predictor given in one word; see `mope.sim.guesses.KINDS`.

    With `truth` the lengths are the true ones whatever the word. `error` sums |forecast - truth|.
    Raises `ConfigError` on other words.
    """

    def __init__(self, predictor: str, profile: Profile, seed: int = 0, truth: bool = False) -> None:
        self._guess = make_guess(predictor, seed, truth)
        self.error, self.count = 0.0, 0
        self._hardware = Hardware(profile)

    def forecast(self, seq: Sequence) -> Forecast | None:
        """What the predictor says of a request."""
        if self._guess is None:
            return None
        length = self._guess(seq)
        self.count += 1
        self.error += abs(length.tokens - seq.output)
        return self._hardware.forecast(seq.prompt, length)

    def util(self, seq: Sequence) -> float:
        """The share of the hardware that a request of this size really took, by the mapper."""
        return self._hardware.shares(seq.prompt, seq.made)[2]

    @property
    def mae(self) -> float | None:
        """Mean absolute error of the forecasts so far, in tokens."""
        return self.error / self.count if self.count else None


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

    def forecast(self, prompt: int, length: LengthForecast) -> Forecast:
        """What follows from a length."""
        latency_s, rate, util = self.shares(prompt, length.tokens)
        return Forecast(length, prompt, latency_s=latency_s, tokens_per_s=rate, gpu_util=util)
