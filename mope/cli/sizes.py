"""What a file of prompts says beside them: the size of each request and its conversation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mope.errors import DataError


class Sizes(NamedTuple):
    """Tokens each request sends and the name of its conversation, None where not told; the columns they are from."""

    tokens: list[int | None]
    labels: list[str | None]
    columns: tuple[str, ...]


def read_sizes(file: Path) -> Sizes | None:
    """Sizes of the rows of a table of prompts, in its order; None for a file without columns.

    A context column counts what was said before the prompt, and is added where there is one.
    """
    from mope.data.readers import open_table, suffix_of
    from mope.data.shapes import ALIASES
    from mope.data.values import label_of

    if not suffix_of(file):
        return None
    table = open_table(file)
    found = {
        field: next((name for name in ALIASES[field] if name in table.columns and "." not in name), "")
        for field in ("prompt_tokens", "conversation")
    }
    unit = found["prompt_tokens"].removeprefix("prompt_tokens").removeprefix("input_tokens")
    context = f"context_tokens{unit}"
    found["context"] = context if found["prompt_tokens"] and context in table.columns else ""
    used = tuple(name for name in found.values() if name)
    tokens: list[int | None] = []
    labels: list[str | None] = []
    for row in table.rows(used, Counter[str]()):
        tokens.append(_tokens(row, found, f"{file}, row {len(tokens) + 1}"))
        labels.append(label_of(row.get(found["conversation"])) or None)
    return Sizes(tokens, labels, used)


def _tokens(row: Mapping[str, object], found: Mapping[str, str], where: str) -> int | None:
    from mope.data.values import Refused, count_of

    try:
        own = count_of(row.get(found["prompt_tokens"]), "prompt_tokens")
        before = count_of(row.get(found["context"]), "context_tokens")
    except Refused as why:
        raise DataError(f"{where}: {why.reason}", "a number of tokens, or nothing") from None
    return None if own is None else own + (before or 0)
