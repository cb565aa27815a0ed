"""Prompts in one table, lengths in another, joined on `prompt_id`; samples of a prompt become one example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mope.data.asked import Reading, asked_example
from mope.data.readers import Row, Table
from mope.data.records import Example
from mope.data.values import Refused, label_of, shorten
from mope.errors import DataError

Key = tuple[str, str | None, str, int | None, float | None, float | None]


def check_pair(prompts: Table, lengths: Table) -> None:
    """Raise `DataError` unless both tables have the column they are joined on."""
    for table in (prompts, lengths):
        if "prompt_id" not in table.columns:
            raise DataError(
                f"no prompt_id column in {table.name}, which has {', '.join(table.columns[:40])}",
                "prompt_id in both tables of a pair X_prompts, X_lengths",
                "add it, or rename the files",
            )


def joined(prompts: Table, lengths: Table, columns: tuple[str, ...], refused: Counter[str]) -> Iterator[Row]:
    """Rows of `lengths`, each with the cells of its prompt's row; the prompts alone are held in memory."""
    known = dict(_by_id(prompts, columns, refused))
    for row in lengths.rows(columns, refused):
        prompt = known.get(label_of(row.get("prompt_id")))
        if prompt is None:
            refused["no prompt for this prompt_id"] += 1
        else:
            yield {**prompt, **row}


def sampled(rows: Iterator[Row], reading: Reading, refused: Counter[str]) -> Iterator[Example]:
    """One example for each prompt, model, sampling settings, source and cap, with all lengths that its rows hold."""
    first: dict[Key, Example] = {}
    more: dict[Key, list[int]] = {}
    for row in rows:
        try:
            example = asked_example(row, reading)
        except Refused as why:
            refused[why.reason] += 1
            continue
        asked = example.request
        key = (example.group, asked.model, example.source, example.cap, asked.temperature, asked.top_p)
        if key in first:
            more.setdefault(key, []).extend(example.lengths)
        else:
            first[key] = example
    for key, example in first.items():
        yield replace(example, lengths=(*example.lengths, *more[key])) if key in more else example


def _by_id(
    prompts: Table, columns: tuple[str, ...], refused: Counter[str]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    for row in prompts.rows(columns, refused):
        name = label_of(row.get("prompt_id"))
        if name:
            text = row.get("prompt")
            yield name, {**row, "prompt": shorten(text)} if isinstance(text, str) else row
        else:
            refused["no prompt_id"] += 1
