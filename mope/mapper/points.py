"""Measured points: what tables and logs are read into before a fit. Arrays of equal length, seconds and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from mope.errors import DataError
from mope.mapper.numbers import Floats

MOST_SECONDS = 3600.0
MOST_TOKENS = 1e9


@dataclass(frozen=True)
class LayerPoints:
    """Seconds that one layer takes for `tokens`, attention left out."""

    tokens: Floats
    seconds: Floats


@dataclass(frozen=True)
class DecodePoints:
    """Seconds of decode attention in one layer for `batch` sequences of `context` tokens each."""

    batch: Floats
    context: Floats
    seconds: Floats


@dataclass(frozen=True)
class PrefillPoints:
    """Seconds of prefill attention in one layer: `batch` chunks of `tokens` after `prefix` cached ones each."""

    batch: Floats
    tokens: Floats
    prefix: Floats
    seconds: Floats


@dataclass(frozen=True)
class LinkPoints:
    """Seconds of an all-reduce of `size` bytes."""

    size: Floats
    seconds: Floats


@dataclass(frozen=True)
class StepPoints:
    """An engine's steps: prompt tokens read, sequences decoding, tokens of context in the batch, seconds."""

    tokens: Floats
    batch: Floats
    context: Floats
    seconds: Floats


@dataclass(frozen=True)
class RequestPoints:
    """An engine's requests: when each began to be read, got its first token and its last; seconds of one clock."""

    start: Floats
    first: Floats
    last: Floats
    prompt_tokens: Floats
    output_tokens: Floats


Points = LayerPoints | DecodePoints | PrefillPoints | LinkPoints | StepPoints | RequestPoints


def column(rows: Sequence[Mapping[str, object]], name: str, origin: str, least: float = 0.0) -> Floats:
    """A column as floats.

    Raises `DataError` with file, row, column and rule for what is no number, NaN, below `least` or absurd.
    """
    values = np.empty(len(rows))
    for i, row in enumerate(rows):
        values[i] = _number(row.get(name), f"{origin}: row {i + 1}, column {name}", least)
    return values


def _number(value: object, where: str, least: float) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DataError(f"{where}: {value!r}", "a number") from None
    if not least <= number <= MOST_TOKENS:
        raise DataError(f"{where}: {value}", f"a number between {least:g} and {MOST_TOKENS:g}")
    return number


def seconds(values: Floats, unit: float, name: str, origin: str) -> Floats:
    """`values` times `unit`; `DataError` naming the first row that is not above 0 or is absurdly long."""
    found = values * unit
    bad = np.flatnonzero(~((found > 0) & (found < MOST_SECONDS)))
    if bad.size:
        row = int(bad[0])
        raise DataError(
            f"{origin}: row {row + 1}, column {name}: {values[row]:g}",
            f"a time above 0 and below {MOST_SECONDS / unit:g}",
        )
    return found


def take(points: Points, chosen: np.ndarray) -> Points:
    """The points at `chosen` (indices or a mask)."""
    return type(points)(*(getattr(points, item.name)[chosen] for item in fields(points)))


def count(points: Points) -> int:
    """How many points."""
    return len(getattr(points, fields(points)[0].name))
