"""What a file of prompts will cost before one is sent: tokens, money and GPU time, with 80 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.busy import Busy, busy, busy_curves
from mope.chat import estimate_tokens
from mope.errors import ConfigError
from mope.mapper.prices import Price
from mope.mapper.profile import Profile
from mope.totals import Shared, length_curves, span, totals
from mope.types import LengthForecast, Request, Span

FloatArray = NDArray[np.float64]

# Standard deviation of log(true / estimated prompt tokens) of whole files: eleven sets of prompts by two tokenizers,
# whose ratios go from 0.83 to 1.39 (scripts/prompt_estimates.py, docs/cost.md).
PROMPT_ERROR = 0.13


@dataclass(frozen=True, slots=True)
class Plan:
    """How totals are drawn; for a hosted model, the share of prompt tokens that its provider finds in its cache; for
    own hardware, how many requests run at a time and what a GPU costs an hour, where that is not its usual price.
    """

    draws: int = 2000
    seed: int = 0
    cached: float = 0.0
    batch: int = 1
    usd_per_gpu_hour: float | None = None
    shared: Shared = field(default_factory=Shared)

    def __post_init__(self) -> None:
        if not (100 <= self.draws <= 100_000 and self.seed >= 0 and 0 <= self.cached <= 1):
            raise ConfigError(
                f"draws {self.draws}, seed {self.seed}, cached share {self.cached}",
                "100 to 100,000 draws, a seed from 0, a share from 0 to 1",
            )
        if self.usd_per_gpu_hour is not None and not 0 <= self.usd_per_gpu_hour <= 1000:
            raise ConfigError(f"{self.usd_per_gpu_hour} USD an hour for a GPU", "from 0 to 1,000")


@dataclass(frozen=True, slots=True)
class Bill:
    """What a file of requests costs at the price of a hosted model; `warning` tells that the price is old."""

    price: Price
    prompt: Span
    output: Span
    total: Span
    warning: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        spans = {"prompt": self.prompt, "output": self.output, "total": self.total}
        price = {**asdict(self.price), "date": str(self.price.date)}
        return {**{n: s._asdict() for n, s in spans.items()}, "price": price, "warning": self.warning}


@dataclass(frozen=True, slots=True)
class FileCost:
    """What a file of requests will take; each `Span` holds the median and the 80 % interval.

    `estimated` is how many prompt sizes are estimates; `prompt_tokens` is as uncertain as those make it.
    """

    requests: int
    conversations: int
    estimated: int
    prompt_tokens: Span
    output_tokens: Span
    plan: Plan
    bill: Bill | None = None
    busy: Busy | None = None

    def to_dict(self) -> dict[str, Any]:
        """As one JSON document; spans as {value, low, high}."""
        return {
            "requests": self.requests,
            "conversations": self.conversations,
            "estimated_prompts": self.estimated,
            "prompt_tokens": self.prompt_tokens._asdict(),
            "output_tokens": self.output_tokens._asdict(),
            "bill": self.bill and self.bill.to_dict(),
            "hardware": self.busy and self.busy.to_dict(),
            "plan": asdict(self.plan),
        }


def file_cost(
    requests: Sequence[Request],
    forecasts: Sequence[LengthForecast],
    price: Price | None = None,
    profile: Profile | None = None,
    plan: Plan | None = None,
    *,
    today: date,
    sizes: Sequence[int | None] | None = None,
    labels: Sequence[str | None] | None = None,
) -> FileCost:
    """Totals of requests with these forecasts at this price, on this hardware, or both.

    `sizes` are counted prompt tokens and `labels` names of conversations, both where known.
    Raises `ConfigError` where there is no request, or where the plan's batch does not fit the hardware.
    """
    plan = plan or Plan()
    if not requests:
        raise ConfigError("no request", "at least one prompt")
    tokens, guessed = prompt_sizes(requests, sizes)
    groups = conversations(requests, labels)
    curves = {"tokens": length_curves(forecasts, requests)}
    if profile is not None:
        curves["gpu_ms"] = busy_curves(profile, plan.batch, tokens, forecasts, requests)
    drawn = totals(curves, groups, plan.draws, plan.seed, plan.shared)
    prompt, output = prompt_totals(tokens, guessed, plan), drawn["tokens"]
    return FileCost(
        requests=len(requests),
        conversations=int(groups.max()) + 1,
        estimated=int(guessed.sum()),
        prompt_tokens=span(prompt),
        output_tokens=span(output),
        plan=plan,
        bill=None if price is None else _bill(price, prompt, output, plan, today),
        busy=None
        if profile is None
        else busy(profile, drawn["gpu_ms"], plan.batch, plan.usd_per_gpu_hour, plan.seed),
    )


def _bill(price: Price, prompt: FloatArray, output: FloatArray, plan: Plan, today: date) -> Bill:
    sent, came = price.prompt_cost(prompt, prompt * plan.cached), price.output_cost(output)
    return Bill(price, span(sent), span(came), span(sent + came), price.warning(today))


def prompt_totals(tokens: FloatArray, guessed: NDArray[np.bool_], plan: Plan) -> FloatArray:
    """Prompt tokens of the whole file, [draws]: what was counted is certain, estimates are off together."""
    random = np.random.default_rng((plan.seed, 1))
    factor = np.exp(random.standard_normal(plan.draws) * PROMPT_ERROR)
    out: FloatArray = tokens[~guessed].sum() + tokens[guessed].sum() * factor
    return out


def conversations(
    requests: Sequence[Request], labels: Sequence[str | None] | None = None
) -> NDArray[np.int64]:
    """A number [n] for the conversation of each request: by its label, else by the first thing its user said."""
    labels = labels or [None] * len(requests)
    names = [
        ("label", label) if label else ("first", r.history.prompts[0] if r.history.prompts else r.prompt)
        for r, label in zip(requests, labels, strict=True)
    ]
    known = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], dtype=np.int64)


def prompt_sizes(
    requests: Sequence[Request], counted: Sequence[int | None] | None = None
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Tokens that each request sends [n], and which of these sizes are estimates [n].

    A size that was counted or that the request carries goes before an estimate of the prompt and what came before.
    """
    counted = counted or [None] * len(requests)
    told = [r.prompt_tokens if size is None else size for r, size in zip(requests, counted, strict=True)]
    sizes = [
        estimate_tokens(r.prompt) + (r.history.tokens or 0) if size is None else size
        for r, size in zip(requests, told, strict=True)
    ]
    return np.array(sizes, dtype=np.float64), np.array([size is None for size in told], dtype=bool)


__all__ = ["Bill", "Busy", "FileCost", "Plan", "conversations", "file_cost", "prompt_sizes"]
