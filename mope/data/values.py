"""One cell of a row into text, a count or a label; what cannot be is refused with a short, stable reason."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping

HEAD_CHARS = 4000
TAIL_CHARS = 2000
# Longer than any context window: a "length" above it is a time stamp or an id.
MOST_TOKENS = 100_000_000

_UNENCODABLE = re.compile("[\x00\ud800-\udfff]")


class Refused(Exception):
    """A row that cannot be used; the reason is counted, the row is left out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def clean(text: str) -> str:
    """`text` with NUL and lone surrogates, which no encoder takes, replaced by U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNENCODABLE.sub("\ufffd", text)


def shorten(text: str) -> str:
    """The first `HEAD_CHARS` and last `TAIL_CHARS` characters of a text longer than both together."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return text[:HEAD_CHARS] + text[-TAIL_CHARS:]


def fingerprint(text: str) -> str:
    """16 hex digits that stand for `text` where no id was given."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def text_of(value: object, depth: int = 4) -> str | None:
    """Text from a string, a list of content parts, a list of choices or a message; None where there is none.

    Raises `Refused` for anything else and for what is nested deeper than `depth`.
    """
    if value is None or isinstance(value, str):
        return None if value is None else clean(value)
    if isinstance(value, Mapping) and depth:
        inner = (value[key] for key in ("content", "text", "message") if value.get(key) is not None)
        return text_of(next(inner, None), depth - 1)
    if isinstance(value, list) and depth:
        parts = [text_of(part, depth - 1) for part in value]
        return "".join(part for part in parts if part is not None) if parts else None
    raise Refused("not text")


def prompt_of(value: object) -> str:
    """A prompt with something in it."""
    text = text_of(value)
    if text is None:
        raise Refused("no prompt")
    if not text or text.isspace():
        raise Refused("empty prompt")
    return text


def label_of(value: object) -> str:
    """A name or id as text; empty for what is neither."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:g}"
    return str(value) if isinstance(value, int) else ""


def finish_of(value: object) -> str:
    """Why an answer ended: a word, or that of the first of a list of choices; empty where it is not told."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        value = value[0].get("finish_reason")
    return value if isinstance(value, str) else ""


def count_of(value: object, what: str) -> int | None:
    """A whole number of at least 0; None where the cell is empty."""
    if isinstance(value, str):
        value = _number(value, what)
    if value is None:
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise Refused(
                f"{what} is not a whole number" if math.isfinite(value) else f"{what} is not a number"
            )
    elif isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"{what} is not a number")
    if value < 0:
        raise Refused(f"{what} is negative")
    if value > MOST_TOKENS:
        raise Refused(f"{what} is too large")
    return int(value)


def setting_of(value: object, what: str) -> float | None:
    """A number of at least 0, such as a temperature; None where the cell is empty."""
    if isinstance(value, str):
        value = _number(value, what)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Refused(f"{what} is not a number")
    if value < 0:
        raise Refused(f"{what} is negative")
    return float(value)


def counts_of(value: object, what: str) -> tuple[int, ...]:
    """One or several counts; a list may also be written as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = listed(value, f"{what} is not a number")
    counts = [count_of(item, what) for item in (value if isinstance(value, list) else [value])]
    present = tuple(count for count in counts if count is not None)
    if not present:
        raise Refused(f"no {what}")
    return present


def listed(value: object, reason: str) -> list[object]:
    """A list, from itself or from JSON text, else `Refused(reason)`."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as cause:
            raise Refused(reason) from cause
    if not isinstance(value, list):
        raise Refused(reason)
    return value


def _number(text: str, what: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError as cause:
        raise Refused(f"{what} is not a number") from cause
