"""Equinox: the client with the smallest holistic fairness score is next (arXiv 2508.16646).

The two counters, their ingredients, alpha, beta and delta are the paper's; the shapes are our reading of it,
and each is a field that can be switched. See docs/equinox.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import ClassVar, Literal

from mope.equinox.counters import (
    GRAIN,
    felt_at_head,
    felt_since_arrival,
    holistic_score,
    resource_rate,
    resource_work,
    score_factors,
    user_charge,
    weighted_tokens,
)
from mope.equinox.policies.base import Charge, Policy
from mope.equinox.state import Job
from mope.errors import ConfigError

TAG_BITS = 108  # tags count 2**-20 of a second of peak service


@dataclass(frozen=True)
class EquinoxConfig:
    """Weights and forms of the holistic score."""

    alpha: float = field(default=0.7, metadata={"help": "weight of the user counter"})
    beta: float = field(default=0.3, metadata={"help": "weight of the resource counter"})
    delta: float = field(default=0.1, metadata={"help": "what a second of latency takes off the user charge"})
    k_in: float = field(default=1.0, metadata={"help": "weight of a prompt token"})
    k_out: float = field(default=4.0, metadata={"help": "weight of an output token; 2 reproduces VTC"})
    latency: Literal["head", "arrival"] = field(
        default="head", metadata={"help": "head: waiting at the head of the own queue; arrival: all waiting"}
    )
    resource: Literal["rate", "work"] = field(
        default="rate", metadata={"help": "rate: tokens/s x utilisation; work: seconds x utilisation"}
    )
    normaliser: Literal["peak", "unit"] = field(
        default="peak", metadata={"help": "peak: one second of peak service; unit: counters as they are"}
    )
    peak_tokens_per_s: float = field(
        default=2500.0, metadata={"help": "output tokens per second of the deployment at its best"}
    )
    truth: bool = field(default=False, metadata={"help": "forecasts are the truth (oracle, for studies)"})

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "delta"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"equinox: {name}={getattr(self, name)}", "a finite number from 0 up")
        for name in ("k_in", "k_out", "peak_tokens_per_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"equinox: {name}={getattr(self, name)}", "a finite number above 0")
        if self.alpha + self.beta == 0:
            raise ConfigError("equinox: alpha=0, beta=0", "one of them above 0")
        for name, known in (
            ("latency", ("head", "arrival")), ("resource", ("rate", "work")), ("normaliser", ("peak", "unit")),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise ConfigError(f"equinox: {name}={getattr(self, name)!r}", " or ".join(known))

    @property
    def n_u(self) -> float:
        """N_u: weighted tokens in one second of peak service."""
        return self.k_out * self.peak_tokens_per_s if self.normaliser == "peak" else 1.0

    @property
    def n_r(self) -> float:
        """N_r: resource charge of one second of peak service at full utilisation."""
        return self.peak_tokens_per_s if self.normaliser == "peak" and self.resource == "rate" else 1.0


class Equinox(Policy):
    """Holistic fairness: HF = alpha UFC / N_u + beta RFC / N_r."""

    name: ClassVar[str] = "equinox"
    Config: ClassVar[type[EquinoxConfig]] = EquinoxConfig
    presets: ClassVar[Mapping[str, EquinoxConfig]] = {"paper": EquinoxConfig(alpha=0.7, beta=0.3, delta=0.1)}
    config: EquinoxConfig

    def __init__(self, config: EquinoxConfig | None = None) -> None:
        super().__init__(config)
        settings = self.config
        self._a, self._b = score_factors(settings.alpha, settings.beta, settings.n_u, settings.n_r)
        self._k_in, self._k_out, self._delta = settings.k_in, settings.k_out, settings.delta
        self._peak = settings.peak_tokens_per_s
        self._felt_s = felt_at_head if settings.latency == "head" else felt_since_arrival
        self._resource = resource_rate if settings.resource == "rate" else resource_work

    @property
    def oracle(self) -> bool:
        """Whether the forecasts given to it should be the true lengths."""
        return self.config.truth

    def expected_tokens(self, tokens: float, mean: float | None) -> float:
        """The forecast, the client's mean or the prior: whichever is believed."""
        return tokens

    def charge(
        self,
        weight: float,
        prompt_tokens: int,
        output_tokens: float,
        head_s: float,
        queued_s: float,
        service_s: float,
        rate: float,
        util: float,
    ) -> Charge:
        """u on the user counter, v on the resource counter."""
        tokens = weighted_tokens(prompt_tokens, output_tokens, self._k_in, self._k_out)
        user = user_charge(tokens, weight, self._delta, self._felt_s(head_s, queued_s, service_s))
        if rate > self._peak:
            # One request cannot yield more than the deployment: a finish after no time must not look so.
            rate = self._peak
        return int(user * GRAIN), int(self._resource(service_s, rate, util, weight) * GRAIN)

    def score(self, user: int, resource: int, head: Job) -> int:
        """HF in units of 2**-128."""
        return holistic_score(user, resource, self._a, self._b)

    def tag(self, score: int) -> int:
        """In 2**-20 of a second of peak service."""
        return score >> TAG_BITS
