"""What a file of prompts will cost before one is sent: tokens and money with 80 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.chat import estimate_tokens
from mope.errors import ConfigError
from mope.mapper.prices import Price
from mope.totals import Curves, Shared, length_curves, span, totals
from mope.types import LengthForecast, Request, Span

# Log of true over estimated prompt tokens of a whole file: its spread over eight sets of prompts counted by two
# tokenizers, whose ratios go from 0.83 to 1.24 (docs/cost.md).
PROMPT_ERROR = 0.11


@dataclass(frozen=True, slots=True)
class Plan:
    """How totals are drawn, and the share of prompt tokens that the provider is expected to find in its cache."""

    draws: int = 2000
    seed: int = 0
    cached: float = 0.0
    shared: Shared = field(default_factory=Shared)

    def __post_init__(self) -> None:
        if not (100 <= self.draws <= 100_000 and self.seed >= 0 and 0 <= self.cached <= 1):
            raise ConfigError(
                f"draws {self.draws}, seed {self.seed}, cached share {self.cached}",
                "100 to 100,000 draws, a seed from 0, a share from 0 to 1",
            )


@dataclass(frozen=True, slots=True)
class FileCost:
    """What a file of requests will cost; each `Span` holds the median and the 80 % interval.

    `estimated` is how many prompt sizes are estimates; `prompt_tokens` is as uncertain as those make it.
    `extra` holds totals of whatever else was asked for, by name.
    """

    requests: int
    conversations: int
    estimated: int
    prompt_tokens: Span
    output_tokens: Span
    prompt_cost: Span
    output_cost: Span
    cost: Span
    price: Price
    warning: str
    plan: Plan
    extra: Mapping[str, Span] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As one JSON document; spans as {value, low, high}, the price with its date."""
        spans = ("prompt_tokens", "output_tokens", "prompt_cost", "output_cost", "cost")
        price = {**asdict(self.price), "date": str(self.price.date)}
        return {
            "requests": self.requests,
            "conversations": self.conversations,
            "estimated_prompts": self.estimated,
            **{name: getattr(self, name)._asdict() for name in spans},
            **{name: value._asdict() for name, value in self.extra.items()},
            "price": price,
            "warning": self.warning,
            "plan": asdict(self.plan),
        }


def file_cost(
    requests: Sequence[Request],
    forecasts: Sequence[LengthForecast],
    price: Price,
    plan: Plan | None = None,
    *,
    today: date,
    sizes: Sequence[int | None] | None = None,
    labels: Sequence[str | None] | None = None,
    extra: Mapping[str, Curves] | None = None,
) -> FileCost:
    """Totals of requests with these forecasts at this price.

    `sizes` are counted prompt tokens and `labels` names of conversations, both where known; `extra` holds other
    quantities by name as curves over the same requests, such as GPU-seconds.
    Raises `ConfigError` where there is no request.
    """
    plan = plan or Plan()
    if not requests:
        raise ConfigError("no request", "at least one prompt")
    tokens, guessed = prompt_sizes(requests, sizes)
    groups = conversations(requests, labels)
    drawn = totals(
        {"": length_curves(forecasts, requests), **(extra or {})}, groups, plan.draws, plan.seed, plan.shared
    )
    output = drawn.pop("")
    prompt = prompt_totals(tokens, guessed, plan)
    prompt_cost, output_cost = price.prompt_cost(prompt, prompt * plan.cached), price.output_cost(output)
    return FileCost(
        requests=len(requests),
        conversations=int(groups.max()) + 1,
        estimated=int(guessed.sum()),
        prompt_tokens=span(prompt),
        output_tokens=span(output),
        prompt_cost=span(prompt_cost),
        output_cost=span(output_cost),
        cost=span(prompt_cost + output_cost),
        price=price,
        warning=price.warning(today),
        plan=plan,
        extra={name: span(values) for name, values in drawn.items()},
    )


def prompt_totals(tokens: NDArray[np.float64], guessed: NDArray[np.bool_], plan: Plan) -> NDArray[np.float64]:
    """Prompt tokens of the whole file, [draws]: what was counted is certain, estimates are off together."""
    random = np.random.default_rng((plan.seed, 1))
    factor = np.exp(random.standard_normal(plan.draws) * PROMPT_ERROR)
    out: NDArray[np.float64] = tokens[~guessed].sum() + tokens[guessed].sum() * factor
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
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
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


__all__ = ["FileCost", "Plan", "conversations", "file_cost", "prompt_sizes"]
