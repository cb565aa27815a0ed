"""What everything is trained and judged on: a request beside the length of its answer."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mope.errors import DataError
from mope.types import Request


@dataclass(frozen=True, slots=True)
class Example:
    """A request and the output tokens of one or several answers sampled for it.

    `group` is the conversation (or prompt) that must not be torn apart by a split. `cap` is the limit
    the answers were cut at, in tokens: a length equal to or above it is censored.
    """

    request: Request
    lengths: tuple[int, ...]
    group: str
    source: str = ""
    cap: int | None = None

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 0:
            raise DataError(f"lengths {self.lengths[:5]}", "one or more output lengths, none negative")

    @property
    def limit(self) -> int | None:
        """Where the answers were cut at the latest: the cap, or the request's max_tokens if that is less."""
        told = [n for n in (self.cap, self.request.max_tokens) if n is not None]
        return min(told, default=None)


@dataclass
class LengthData:
    """Examples, and a count by reason of the rows that could not become one."""

    examples: list[Example]
    refused: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Median output tokens of each example, float64 [n]."""
        return np.array([_median(example.lengths) for example in self.examples], dtype=np.float64)

    @property
    def groups(self) -> list[str]:
        """The unit of splitting and of the bootstrap, one for each example."""
        return [example.group for example in self.examples]

    @property
    def sources(self) -> list[str]:
        """Where each example comes from."""
        return [example.source for example in self.examples]

    @property
    def models(self) -> list[str]:
        """The model that answered, empty where it is unknown."""
        return [example.request.model or "" for example in self.examples]

    @property
    def requests(self) -> list[Request]:
        """The requests alone, in order."""
        return [example.request for example in self.examples]

    def take(self, indices: Iterable[int]) -> LengthData:
        """The examples at `indices`, in that order; nothing is refused in it."""
        return LengthData([self.examples[int(i)] for i in indices])

    def digest(self) -> str:
        """Sha256 over the examples, the same for every order of the rows."""
        total = hashlib.sha256()
        for line in sorted(_digest(example) for example in self.examples):
            total.update(line)
        return total.hexdigest()


def _median(lengths: tuple[int, ...]) -> float:
    ordered = sorted(lengths)
    n = len(ordered)
    return (ordered[n // 2] + ordered[(n - 1) // 2]) / 2


def _digest(example: Example) -> bytes:
    request, history = example.request, example.request.history
    content = (
        request.prompt, request.id, request.client, request.prompt_tokens, request.max_tokens, request.model,
        request.arrival_s, history.turn, history.prompts, history.lengths, history.answer_tail,
        history.tokens, sorted(example.lengths), example.group, example.source, example.cap,
    )  # fmt: skip
    settings = [x for x in (request.temperature, request.top_p) if x is not None]
    return hashlib.sha256(json.dumps([content, settings] if settings else content).encode()).digest()
