"""What comes over the border: refused with a clear error before anything has changed, or clamped as stated."""

from __future__ import annotations

from math import isfinite

from mope.chat import estimate_tokens
from mope.errors import BadInput
from mope.types import Forecast, Request, Usage

MOST_TOKENS = 2**31


def prompt_tokens(request: Request, forecast: Forecast | None) -> int:
    """Of the request, else of the forecast, else estimated from the text; `BadInput` where it cannot be."""
    if not (request.id and isinstance(request.id, str) and isinstance(request.client, str)):
        raise BadInput(f"request id {request.id!r} of client {request.client!r}", "words, the id not empty")
    if request.max_tokens is not None:
        tokens("max_tokens", request.max_tokens)
    count = request.prompt_tokens
    if count is not None:
        return count if type(count) is int and 0 <= count <= MOST_TOKENS else tokens("prompt_tokens", count)
    foreseen = 0 if forecast is None else forecast.prompt_tokens
    return (
        foreseen
        if isinstance(foreseen, int) and 0 < foreseen < MOST_TOKENS
        else estimate_tokens(request.prompt)
    )


def tokens(name: str, count: int) -> int:
    """`count` as it is; `BadInput` unless it is a whole number from 0 to 2**31."""
    if not isinstance(count, int) or not 0 <= count <= MOST_TOKENS:
        raise BadInput(f"{name}={count!r}", f"a whole number from 0 to {MOST_TOKENS}")
    return count


def usage(given: Usage) -> None:
    """`BadInput` unless the token counts of a usage are whole numbers from 0 up."""
    count = given.output_tokens
    if not (type(count) is int and 0 <= count <= MOST_TOKENS):
        tokens("output_tokens", count)
    if given.prompt_tokens is not None:
        tokens("prompt_tokens", given.prompt_tokens)


def most_tokens(request: Request, longest: int) -> int:
    """The output tokens a request can have: `max_tokens` where it says so, never above `longest`."""
    return longest if request.max_tokens is None else min(request.max_tokens, longest)


def seconds(now: float, past: float) -> float:
    """`now`, or `past` where time went backwards; `BadInput` where it is not a finite number."""
    if not isfinite(now):
        raise BadInput(f"now={now}", "a finite number of seconds")
    return max(now, past)


def measured(value: float | None, otherwise: float) -> float:
    """A measured number where there is one that is finite and from 0 up."""
    return value if value is not None and 0 <= value < float("inf") else otherwise
