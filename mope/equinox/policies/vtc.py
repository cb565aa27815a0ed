"""Virtual Token Counter (Sheng et al., OSDI 2024): the client with the smallest weighted service is next.

A request costs h(n_in, n_out) / w. Plain, h(n_in, 0) is charged at admission and the rest token by token.
With a predicted length, h(n_in, predicted) is charged at admission, tokens beyond it as they come, and at
finish what was charged too much is given back (Algorithm 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import ClassVar, Literal

from mope.equinox.counters import GRAIN, profiled_cost, weighted_tokens
from mope.equinox.policies.base import Charge, Policy
from mope.equinox.state import Job
from mope.errors import ConfigError

TAG_BITS = 54  # tags count 2**-10 of a token


@dataclass(frozen=True)
class VtcConfig:
    """The forms of VTC."""

    predict: Literal["none", "mean", "forecast", "oracle"] = field(
        default="none",
        metadata={"help": "none: plain; mean: of the client's last answers; oracle: forecasts are the truth"},
    )
    cost: Literal["tokens", "profiled"] = field(
        default="tokens",
        metadata={"help": "tokens: k_in n_in + k_out n_out; profiled: VTC's quadratic, in ms"},
    )
    k_in: float = field(default=1.0, metadata={"help": "cost of a prompt token"})
    k_out: float = field(default=2.0, metadata={"help": "cost of an output token"})

    def __post_init__(self) -> None:
        if self.predict not in ("none", "mean", "forecast", "oracle"):
            raise ConfigError(f"vtc: predict={self.predict!r}", "none, mean, forecast or oracle")
        if self.cost not in ("tokens", "profiled"):
            raise ConfigError(f"vtc: cost={self.cost!r}", "tokens or profiled")
        for name in ("k_in", "k_out"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"vtc: {name}={getattr(self, name)}", "a finite number above 0")


class Vtc(Policy):
    """VTC: plain, with predicted length, with the oracle's; weighted wherever clients have weights."""

    name: ClassVar[str] = "vtc"
    Config: ClassVar[type[VtcConfig]] = VtcConfig
    shorthand: ClassVar[str] = "predict"
    config: VtcConfig

    @property
    def oracle(self) -> bool:
        """Whether the forecasts given to it should be the true lengths."""
        return self.config.predict == "oracle"

    @property
    def metered(self) -> bool:
        """Whether output is charged as it comes: plain VTC."""
        return self.config.predict == "none"

    def expected_tokens(self, tokens: float, mean: float | None) -> float:
        """None when plain; a mean starts at 0, as published."""
        if self.config.predict == "none":
            return 0.0
        return (mean or 0.0) if self.config.predict == "mean" else tokens

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
        """h(n_in, n_out) / w on the user counter."""
        config = self.config
        if config.cost == "tokens":
            cost = weighted_tokens(prompt_tokens, output_tokens, config.k_in, config.k_out)
        else:
            cost = profiled_cost(prompt_tokens, output_tokens)
        return int(cost / weight * GRAIN), 0

    def score(self, user: int, resource: int, head: Job) -> int:
        """The counter itself."""
        return user

    def tag(self, score: int) -> int:
        """In 1/1024 of a token."""
        return score >> TAG_BITS
