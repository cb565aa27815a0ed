"""Cells of traces, checked: each raises `ValueError` that says what stood there and what was expected."""

from __future__ import annotations

from datetime import datetime
from math import isfinite
from typing import Any

MOST_TOKENS = 2**31


def client_name(name: Any) -> str:
    """The name of a client in a row; `ValueError` where a log could not hold it."""
    client = str(name or "all")
    if "\n" in client or "\r" in client or '"' in client:
        raise ValueError(f"client {client!r}, expected: a name without line breaks and quotes")
    return client


def text(prompt: Any) -> str:
    """A prompt; `ValueError` where it is none."""
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f"prompt {prompt!r}, expected: a text")
    return prompt


def time_of(value: Any) -> float:
    """Seconds from a number or a date."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = _date(value)
    if not isfinite(seconds):
        raise ValueError(f"arrival {value!r}, expected: a finite time")
    return seconds


def _date(value: Any) -> float:
    try:
        when = value if isinstance(value, datetime) else datetime.fromisoformat(_six_digits(str(value)))
    except ValueError:
        raise ValueError(f"arrival {value!r}, expected: seconds, or a date and time") from None
    return when.timestamp() if when.tzinfo else (when - datetime(1970, 1, 1)).total_seconds()


def _six_digits(text: str) -> str:
    """A date with at most microseconds: Azure's have seven digits after the point."""
    head, dot, tail = text.strip().partition(".")
    return f"{head}.{tail[:6].ljust(6, '0')}" if dot and tail.isdigit() else text.strip()


def tokens(key: str, value: Any) -> int:
    """A number of tokens in a row; `ValueError` where it is none."""
    try:
        number = int(value)
        good = 1 <= number <= MOST_TOKENS and number == float(value)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{key} tokens {value!r}, expected: a whole number from 1 to {MOST_TOKENS}")
    return number


def blocks_of(hashes: Any) -> tuple[int, ...]:
    """Names of prompt blocks; `ValueError` where they are none."""
    if not isinstance(hashes, list) or not all(isinstance(one, int) for one in hashes):
        raise ValueError(f"hash_ids {hashes!r}, expected: a list of whole numbers")
    return tuple(hashes)
