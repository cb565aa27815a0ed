"""The words everyone uses: messages, requests, histories, forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

BUCKETS: tuple[str, str, str] = ("short", "medium", "long")


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class History:
    """What is known of a conversation before its last user message. Every field may be missing.

    `prompts` and `lengths` are oldest first. `lengths` counts the tokens of the earlier answers.
    """

    turn: int | None = None
    prompts: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    answer_tail: str = ""
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sends: the last user message, and whatever else is known beside it.

    `temperature` and `top_p` are the sampling settings it asks for.
    """

    prompt: str
    id: str = ""
    client: str = ""
    history: History = field(default_factory=History)
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    model: str | None = None
    arrival_s: float = 0.0
    temperature: float | None = None
    top_p: float | None = None

    @classmethod
    def from_messages(
        cls,
        messages: Sequence[Message | Mapping[str, str]],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        answer_lengths: Sequence[int] | None = None,
    ) -> Request:
        """A chat as a request: the last user message is the prompt, what stands before is history.

        `answer_lengths` are the token counts of the earlier assistant messages, oldest first; where
        they are not given they are estimated from the text (`estimate_tokens`).
        Raises `PromptError` where no user message stands at the end.
        """
        from mope.chat import to_request

        return to_request(messages, model=model, max_tokens=max_tokens, answer_lengths=answer_lengths)


@dataclass(frozen=True, slots=True)
class LengthForecast:
    """How long the answer will be, in output tokens.

    `tokens` is the median; `low` and `high` bound the calibrated 80 % interval; `quantiles[i]` is
    the forecast at probability `levels[i]`; `probabilities` are the router's, in the order of `BUCKETS`.
    """

    tokens: float
    low: float
    high: float
    levels: tuple[float, ...]
    quantiles: tuple[float, ...]
    bucket: str
    probabilities: tuple[float, float, float]


class Span(NamedTuple):
    """A forecast number with the bounds of its 80 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is said of a request before it runs: its length and, where hardware or prices are known, its cost.

    Times in seconds. `ttft_s` counts from the start of the prefill: waiting in a queue is the scheduler's
    business. `tokens_per_s` is the output rate of this request, `gpu_s` what it takes of the hardware in
    GPU-seconds. `mfu`, `mbu` and `gpu_util` are shares in [0, 1] (see `mope.mapper.metrics`). `calibrated` is
    False where the hardware was never measured and the numbers come from datasheets.
    """

    length: LengthForecast
    prompt_tokens: int = 0
    hardware: str = ""
    calibrated: bool = True
    ttft_s: float | None = None
    tpot_s: Span | None = None
    latency_s: Span | None = None
    tokens_per_s: Span | None = None
    mfu: float | None = None
    mbu: float | None = None
    gpu_util: float | None = None
    kv_blocks: Span | None = None
    kv_bytes: Span | None = None
    gpu_s: Span | None = None
    cost: Span | None = None
    currency: str = "USD"

    @classmethod
    def of_tokens(cls, tokens: float, low: float | None = None, high: float | None = None) -> Forecast:
        """A forecast of the length alone, from any other predictor; without bounds, a certain one."""
        low, high = tokens if low is None else low, tokens if high is None else high
        length = LengthForecast(tokens, low, high, (0.1, 0.5, 0.9), (low, tokens, high), "", (0.0, 0.0, 0.0))
        return cls(length)


@dataclass(frozen=True, slots=True)
class Usage:
    """What really happened to a request. Times in seconds; what is not known stays None."""

    output_tokens: int
    prompt_tokens: int | None = None
    ttft_s: float | None = None
    latency_s: float | None = None
    tokens_per_s: float | None = None
    gpu_util: float | None = None
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine has free for the next request: KV tokens, sequence slots, tokens of this step's budget."""

    kv_tokens: float
    slots: int = 1
    step_tokens: float = float("inf")
