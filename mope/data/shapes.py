"""Recognises, by column names alone, what a table holds and which column is what.

    asked   a prompt or a chat in one column, its answer or the answer's length in another
    told    whole conversations, answers included (ShareGPT, LMSYS-Chat-1M): each answer is an example

A column name may be a path into nested objects: `usage.completion_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mope.data.values import clean
from mope.errors import DataError

MAP_FIELDS = (
    "prompt", "messages", "response", "length", "conversation", "turn", "source", "model", "max_tokens",
    "cap",
)  # fmt: skip

_SENT = ("", "request.", "body.", "request.body.")
_CAME = ("", "response.", "response.body.")
_UNITS = ("llama2", "cl100k", "native")


def _under(prefixes: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(prefix + name for prefix in prefixes for name in names)


# In order of preference; counts in the unit of the length column go before these (`_same_unit`).
ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": _under(_SENT, "prompt"),
    "messages": (*_under(_SENT, "messages"), "conversations", "conversation"),
    "response": ("response", *_under(_CAME, "choices")),
    "length": (
        "response_tokens", "output_tokens", "completion_tokens", "response_tokens_llama2",
        "response_tokens_cl100k", "output_tokens_native",
        *_under(_CAME, "usage.completion_tokens", "usage.output_tokens"),
    ),
    "conversation": ("conv_root", "conversation_id", "conversation"),
    "part": ("part",),
    "turn": ("turn",),
    "prompt_id": ("prompt_id",),
    "id": ("id",),
    "source": ("source", "dataset"),
    "model": (*_under(_SENT, "model"), *_under(_CAME[1:], "model")),
    "max_tokens": _under(_SENT, "max_tokens", "max_completion_tokens", "max_output_tokens"),
    "cap": ("cap",),
    **{name: _under(_SENT, name) for name in ("temperature", "top_p")},
    "finish": ("finish_reason", *_under(_CAME, "finish_reason", "choices")),
    "tail": ("prev_response_tail",),
    "prompt_tokens": (
        "prompt_tokens", "input_tokens", "prompt_tokens_llama2", "prompt_tokens_cl100k",
        *_under(_CAME, "usage.prompt_tokens", "usage.input_tokens"),
    ),
    "context_tokens": ("context_tokens", "context_tokens_llama2", "context_tokens_cl100k"),
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Field name -> column, and whether the answers stand inside the conversation (`told`)."""

    fields: Mapping[str, str]
    told: bool

    def get(self, row: Mapping[str, object], name: str) -> object:
        """The cell of `row` that holds the field, None where there is none."""
        path = self.fields.get(name)
        return None if path is None else _pick(row, path)

    @property
    def threaded(self) -> bool:
        """Whether rows are turns of conversations whose history stands in the rows before."""
        return not self.told and "prompt" in self.fields and {"conversation", "turn"} <= self.fields.keys()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is looked at, as paths."""
        return tuple(self.fields.values())


def _pick(row: Mapping[str, object], path: str) -> object:
    if path in row:
        return row[path]
    head, dot, rest = path.partition(".")
    inner = row.get(head) if dot else None
    return _pick(inner, rest) if isinstance(inner, Mapping) else None


def recognise(columns: Sequence[str], mapping: Mapping[str, str] | None, name: str) -> Shape:
    """The shape of a table with these columns; `mapping` (field -> column) goes before what is recognised.

    Raises `DataError`, with the columns found, for an unknown field, a missing column or an unknown shape.
    """
    mapped = dict(mapping or {})
    _check(mapped, columns, name)
    fields = {field: column for field in ALIASES if (column := _find(field, columns))} | mapped
    for named, other in (("messages", "prompt"), ("prompt", "messages"), ("response", "length")):
        if named in mapped and other not in mapped:
            fields.pop(other, None)
    return _settle(_same_unit(fields, columns), columns, name)


def _check(mapped: Mapping[str, str], columns: Sequence[str], name: str) -> None:
    unknown = sorted(mapped.keys() - set(MAP_FIELDS))
    if unknown:
        raise DataError(
            f"unknown fields {unknown} in the column map",
            f"fields out of {', '.join(MAP_FIELDS)}",
            f"write field=column; columns of {name}: {_list(columns)}",
        )
    missing = sorted(set(mapped.values()) - set(columns))
    if missing:
        raise DataError(
            f"no column {missing} in {name}", f"a column out of {_list(columns)}", "correct the column map"
        )


def _find(field: str, columns: Sequence[str]) -> str:
    return next((alias for alias in ALIASES[field] if alias in columns), "")


def _same_unit(fields: dict[str, str], columns: Sequence[str]) -> dict[str, str]:
    """Sizes of prompt and context by the tokenizer of the length column, where they exist."""
    unit = fields.get("length", "").rpartition("_")[2]
    if unit in _UNITS:
        for field, stems in (("prompt_tokens", ("prompt", "input")), ("context_tokens", ("context",))):
            for stem in stems:
                if f"{stem}_tokens_{unit}" in columns:
                    fields[field] = f"{stem}_tokens_{unit}"
    return fields


def _settle(fields: dict[str, str], columns: Sequence[str], name: str) -> Shape:
    answered = "length" in fields or "response" in fields
    if "prompt" in fields and answered:
        fields.pop("messages", None)
        return Shape(fields, told=False)
    if "messages" in fields:
        if fields.get("conversation") == fields["messages"]:
            del fields["conversation"]
        if not answered:
            fields.pop("prompt", None)
        return Shape(fields, told=not answered)
    what = "length or response" if "prompt" in fields else "prompt"
    raise DataError(
        f"no {what} column in {name}, which has {_list(columns)}",
        "prompt or messages beside response or response_tokens, or conversations with their answers",
        "name the columns with --map prompt=COLUMN,length=COLUMN",
    )


def _list(columns: Sequence[str]) -> str:
    shown = ", ".join(clean(column)[:60] for column in columns[:40])
    return f"{shown} and {len(columns) - 40} more" if len(columns) > 40 else shown or "none"
