"""Lengths by source and model: counted, never listed, so that memory grows with distinct lengths alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mope.data.records import Example

LEVELS = (10, 33, 50, 66, 90, 99)  # percentiles that are told
MOST_GROUPS = 2000  # pairs of source and model told apart; what comes after goes under REST
REST = ("(others)", "(others)")
# A pile-up: as many answers of one length as PILE times the mean around it, FEWEST at least, from SHORTEST on.
PILE, FEWEST, SHORTEST = 8.0, 20, 32
AROUND = 0.05


class Pile(NamedTuple):
    """Answers of one length, far more than of the lengths around it; `round` as limits are."""

    source: str
    model: str
    length: int
    answers: int
    expected: float
    round: bool


@dataclass
class Group:
    """The answers of one model in one source."""

    examples: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    bounded: int = 0  # answers whose limit is known
    capped: int = 0  # of them, those that reached it
    limits: Counter[int] = field(default_factory=Counter)

    def add(self, example: Example) -> None:
        """Count one example's answers."""
        self.examples += 1
        self.lengths.update(example.lengths)
        limit = limit_of(example)
        if limit is not None:
            self.bounded += len(example.lengths)
            reached = sum(length >= limit for length in example.lengths)
            self.capped += reached
            self.limits[limit] += reached

    @property
    def answers(self) -> int:
        """How many answers."""
        return self.lengths.total()

    def row(self) -> dict[str, object]:
        """Counts, percentiles and shares."""
        found = percentiles(self.lengths, LEVELS)
        limits = {str(limit): count for limit, count in self.limits.most_common(5) if count}
        return {
            "examples": self.examples,
            "answers": self.answers,
            "min": min(self.lengths),
            **{f"p{level}": value for level, value in zip(LEVELS, found, strict=True)},
            "max": max(self.lengths),
            "empty": self.lengths[0],
            "limit_known": self.bounded / self.answers,
            "capped": self.capped / self.answers,
            "reached_limits": limits,
        }


@dataclass
class Tally:
    """Groups by (source, model)."""

    groups: dict[tuple[str, str], Group] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        """Count one example."""
        key = example.source, example.request.model or ""
        if key not in self.groups and len(self.groups) >= MOST_GROUPS:
            key = REST
        self.groups.setdefault(key, Group()).add(example)

    def merged(self, by: str = "") -> dict[tuple[str, str], Group]:
        """Groups by "source" or by "model" alone; everything as one otherwise."""
        found: dict[tuple[str, str], Group] = {}
        for (source, model), group in self.groups.items():
            key = (source if by == "source" else "", model if by == "model" else "")
            into = found.setdefault(key, Group())
            into.examples += group.examples
            into.bounded += group.bounded
            into.capped += group.capped
            into.lengths.update(group.lengths)
            into.limits.update(group.limits)
        return found

    def piles(self) -> list[Pile]:
        """Pile-ups of every group, the largest first."""
        found = [pile for key, group in self.groups.items() for pile in _piles(key, group.lengths)]
        return sorted(found, key=lambda pile: -pile.answers)


def limit_of(example: Example) -> int | None:
    """Where the answers were cut at the latest: the cap, or max_tokens where that is less."""
    told = [n for n in (example.cap, example.request.max_tokens) if n is not None]
    return min(told, default=None)


def percentiles(counts: Mapping[int, int], levels: Sequence[float]) -> list[float]:
    """Percentiles of counted values, as `numpy.percentile` of the values one by one; at least one value."""
    values = np.array(sorted(counts))
    reached = np.cumsum([counts[value] for value in values.tolist()])
    places = np.asarray(levels) / 100 * (reached[-1] - 1)
    below, above = np.floor(places), np.ceil(places)
    low = values[np.searchsorted(reached, below, side="right")]
    high = values[np.searchsorted(reached, above, side="right")]
    return [float(x) for x in low + (places - below) * (high - low)]


def _piles(key: tuple[str, str], counts: Counter[int]) -> list[Pile]:
    found = []
    for length, count in counts.items():
        if length < SHORTEST or count < FEWEST:
            continue
        reach = max(8, int(AROUND * length))
        near = sum(counts[n] for n in range(length - reach, length + reach + 1)) - count
        expected = near / (2 * reach)
        if count >= PILE * max(expected, 0.25):
            found.append(Pile(*key, length, count, expected, _round(length)))
    return found


def _round(length: int) -> bool:
    """Whether it, or a neighbour (a token more or less for the end), is what people set limits to."""
    return any(n % 50 == 0 or n % 64 == 0 for n in (length - 1, length, length + 1))
