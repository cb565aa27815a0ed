"""The words everyone uses: messages, requests, histories, forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    """What a client sends: the last user message, and whatever else is known beside it."""

    prompt: str
    id: str = ""
    client: str = ""
    history: History = field(default_factory=History)
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    model: str | None = None
    arrival_s: float = 0.0

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
