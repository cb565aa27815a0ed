"""A row that holds a prompt or a chat, and no answer yet, into a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mope.chat import to_request
from mope.data.messages import messages_of
from mope.data.shapes import ALIASES, Shape
from mope.data.values import Refused, clean, count_of, label_of, prompt_of, setting_of
from mope.errors import DataError
from mope.types import Request

# Conversations that hold their answers (ShareGPT, LMSYS) ask nothing that is still open: not among these.
NAMES = {
    "messages": tuple(name for name in ALIASES["messages"] if name.endswith("messages")),
    **{
        field: ALIASES[field]
        for field in ("prompt", "model", "max_tokens", "prompt_tokens", "temperature", "top_p")
    },
}


def prompt_shape(columns: Sequence[str], name: str, mapping: Mapping[str, str] | None = None) -> Shape:
    """Which column is what; `mapping` (a field of `NAMES` -> column) goes before what is recognised.

    Raises `DataError`, with the columns found, for an unknown field, a missing column, and no prompt at all.
    """
    mapped = dict(mapping or {})
    shown = ", ".join(clean(column)[:60] for column in columns[:40])
    for field, column in mapped.items():
        if field not in NAMES:
            raise DataError(f"field {field!r} in the column map", f"one of {', '.join(NAMES)}")
        if column not in columns:
            raise DataError(f"no column {column!r} in {name}", f"a column out of {shown}")
    found = {field: next((n for n in names if n in columns), "") for field, names in NAMES.items()}
    if {"messages", "prompt"} & mapped.keys():
        found |= {"messages": "", "prompt": ""}
    fields = {field: column for field, column in (found | mapped).items() if column}
    if not {"messages", "prompt"} & fields.keys():
        raise DataError(
            f"{name} with columns {shown}",
            "a column named messages or prompt",
            "name it with --map prompt=COLUMN",
        )
    return Shape(fields, told=False)


def prompt_request(
    row: Mapping[str, object], shape: Shape, model: str | None = None, max_tokens: int | None = None
) -> Request:
    """The request of one row; `model` and `max_tokens` go before the row's own. Raises `Refused`."""
    limit = count_of(shape.get(row, "max_tokens"), "max_tokens") if max_tokens is None else max_tokens
    served = model or label_of(shape.get(row, "model")) or None
    size = count_of(shape.get(row, "prompt_tokens"), "prompt_tokens")
    heat, top_p = (setting_of(shape.get(row, name), name) for name in ("temperature", "top_p"))
    cell = shape.get(row, "messages")
    if cell is None:
        request = Request(prompt_of(shape.get(row, "prompt")), max_tokens=limit, model=served)
        return replace(request, prompt_tokens=size, temperature=heat, top_p=top_p)
    chat = messages_of(cell)
    if not chat or chat[-1].role != "user":
        raise Refused(f"a chat that ends with {chat[-1].role if chat else 'nothing'}")
    prompt_of(chat[-1].content)
    request = to_request(chat, model=served, max_tokens=limit)
    request = replace(request, temperature=heat, top_p=top_p)
    return request if size is None else replace(request, prompt_tokens=size)
