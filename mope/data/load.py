"""Reads (prompt, output length) pairs from every form that `mope train` and `mope evaluate` take."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mope.data.asked import Reading, answer_tail, asked_example
from mope.data.counting import TokenCount, token_count
from mope.data.pairs import check_pair, joined, sampled
from mope.data.readers import Row, Table, open_table
from mope.data.records import Example, LengthData
from mope.data.shapes import recognise
from mope.data.sources import LENGTHS, PROMPTS, Source, find_sources
from mope.data.threads import Turn, thread
from mope.data.told import told_examples
from mope.data.values import Refused, count_of, label_of
from mope.errors import DataError


def read_examples(
    paths: Sequence[str | Path],
    *,
    mapping: Mapping[str, str] | None = None,
    tokenizer: str | None = None,
    limit: int | None = None,
) -> LengthData:
    """All examples under `paths`, or the first `limit`, with the refused rows counted by reason.

    `paths` are files (parquet, JSONL, JSON, CSV), folders of them, saved `datasets` or ids on the Hub.
    `mapping` names columns that are not recognised (`shapes.MAP_FIELDS` -> column). `tokenizer` (file, folder
    or Hub id) counts the answers' texts; without it a length column is used, and failing that an estimate.
    Raises `DataError` where something cannot be read or no row is usable.
    """
    if limit is not None and limit < 1:
        raise DataError(f"a limit of {limit} rows", "at least 1")
    refused: Counter[str] = Counter()
    notes: list[str] = []
    found = iter_examples(paths, mapping=mapping, tokenizer=tokenizer, refused=refused, notes=notes)
    examples = list(itertools.islice(found, limit))
    if not examples:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in refused.most_common())
        raise DataError(
            f"no usable row in {', '.join(map(str, _listed(paths)))} ({reasons or 'no rows'})",
            "rows with a prompt and an output length",
            "name the columns with --map prompt=COLUMN,length=COLUMN",
        )
    return LengthData(examples, refused, notes)


def iter_examples(
    paths: Sequence[str | Path],
    *,
    mapping: Mapping[str, str] | None = None,
    tokenizer: str | None = None,
    refused: Counter[str],
    notes: list[str] | None = None,
) -> Iterator[Example]:
    """Examples one after another; `refused` and `notes` grow on the way.

    Only tables whose rows must be brought together (turns of conversations, samples of prompts) are held
    in memory, one at a time and with their texts cut.
    """
    notes = [] if notes is None else notes
    count = token_count(tokenizer)
    for source in find_sources(_listed(paths), notes):
        yield from _read(source, mapping, count, refused, notes)


def _listed(paths: Sequence[str | Path]) -> Sequence[str | Path]:
    return [paths] if isinstance(paths, str | Path) else paths


def _read(
    source: Source,
    mapping: Mapping[str, str] | None,
    count: TokenCount,
    refused: Counter[str],
    notes: list[str],
) -> Iterator[Example]:
    table = source.open()
    lengths = open_table(source.lengths) if source.lengths else None
    columns = table.columns + (lengths.columns if lengths else ())
    stem = table.stem.removesuffix(PROMPTS).removesuffix(LENGTHS)
    reading = Reading(recognise(columns, mapping, table.name), stem, count)
    _note(table, reading, notes)
    if lengths:
        check_pair(table, lengths)
        return sampled(joined(table, lengths, reading.shape.columns, refused), reading, refused)
    rows = table.rows(reading.shape.columns, refused)
    if reading.shape.threaded:
        return thread(list(_turns(rows, reading, refused)))
    return _examples(rows, reading, refused)


def _note(table: Table, reading: Reading, notes: list[str]) -> None:
    if reading.count.exact and not reading.counts_text:
        notes.append(f"{table.name}: no answer texts to count; the lengths are those of its column")
    if reading.counts_text and not reading.count.exact:
        notes.append(f"{table.name}: lengths are estimated from the texts; give a tokenizer to count them")


def _examples(rows: Iterator[Row], reading: Reading, refused: Counter[str]) -> Iterator[Example]:
    for row in rows:
        try:
            if reading.shape.told:
                yield from told_examples(row, reading, refused)
            else:
                yield asked_example(row, reading)
        except Refused as why:
            refused[why.reason] += 1


def _turns(rows: Iterator[Row], reading: Reading, refused: Counter[str]) -> Iterator[Turn]:
    shape = reading.shape
    for row in rows:
        try:
            example = asked_example(row, reading)
            place = _place(row, reading, example)
            yield Turn(example, place, answer_tail(row, shape))
        except Refused as why:
            refused[why.reason] += 1


def _place(row: Row, reading: Reading, example: Example) -> tuple[int, int] | None:
    """(part, turn) of a row that names its conversation and its turn."""
    turn = example.request.history.turn
    if turn is None or not label_of(reading.shape.get(row, "conversation")):
        return None
    return count_of(reading.shape.get(row, "part"), "part") or 0, turn
