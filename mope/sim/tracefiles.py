"""Rows of trace files as they stand: known by their columns, not checked yet. See `mope.sim.traces` for the forms."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

from mope.data.parquet import parquet_columns, parquet_rows
from mope.errors import DataError

TIMES = ("arrival_s", "TIMESTAMP", "Timestamp", "timestamp")
CLIENTS = ("client", "user", "Session ID")
PROMPTS = ("prompt_tokens", "input_tokens", "ContextTokens", "Request tokens", "input_length")
OUTPUTS = ("output_tokens", "GeneratedTokens", "Response tokens", "output_length")
OWN, MOONCAKE = "arrival_s", "input_length"

Raw = tuple[Any, Any, Any, Any, Any]  # time, client, prompt, output, blocks


class Trace(NamedTuple):
    """Rows of a trace; `relative` where times count from the first row's, `unit` the seconds in one of time."""

    rows: Iterator[Raw]
    relative: bool
    unit: float


def open_trace(path: Path, *, timed: bool = True, client: str | None = None) -> Trace:
    """The rows of a file. Raises `DataError` where it is missing, empty or of no known form.

    Without `timed` it needs no times. `client` names a column that is read in the client's place.
    """
    wanted = (TIMES if timed else (), CLIENTS if client is None else (client,), PROMPTS, OUTPUTS)
    needed = (timed, client is not None, True, True)
    if not path.is_file():
        raise DataError(f"{path}: no such file", "a trace")
    name = path.name.removesuffix(".gz")
    if not name.endswith((".parquet", ".jsonl", ".json")):
        return _open_csv(path, wanted, needed)
    rows = _parquet(path) if name.endswith(".parquet") else _json_lines(path)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: no rows", "at least one request")
    columns = _columns(list(first), path, wanted, needed)
    keys = [*columns, "hash_ids"]
    found = (tuple(row.get(key) for key in keys) for row in chain([first], rows))
    return Trace(cast("Iterator[Raw]", found), *_clock(columns))


def _open_csv(path: Path, wanted: Sequence[Sequence[str]], needed: Sequence[bool]) -> Trace:
    rows = csv.reader(_lines(path))
    head = next(rows, None)
    first = next(rows, None)
    if head is None or first is None:
        raise DataError(f"{path}: no rows", "a header and at least one request")
    columns = _columns(head, path, wanted, needed)
    time, client, prompt, output = (head.index(key) if key in head else -1 for key in columns)
    most = max(time, client, prompt, output)

    def cells() -> Iterator[Raw]:
        for row in chain([first], rows):
            if len(row) <= most:
                row += [""] * (most + 1 - len(row))
            yield (
                row[time] if time >= 0 else None,
                row[client] if client >= 0 else "",
                row[prompt],
                row[output],
                None,
            )

    return Trace(cells(), *_clock(columns))


def _columns(
    names: Sequence[str], path: Path, wanted: Sequence[Sequence[str]], needed: Sequence[bool]
) -> list[str]:
    """The columns of time, client, prompt and output."""
    found = [next((name for name in options if name in names), "") for options in wanted]
    for name, options, must in zip(found, wanted, needed, strict=True):
        if must and not name:
            todo = "a file of lengths alone needs a rate of arrivals" if options is TIMES else ""
            raise DataError(
                f"{path}: columns {', '.join(map(str, names))}", f"one of {', '.join(options)}", todo
            )
    return found


def _clock(columns: list[str]) -> tuple[bool, float]:
    return columns[0] != OWN, 1e-3 if MOONCAKE in columns else 1.0


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: {error}", "one JSON object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number}: {type(row).__name__}", "one JSON object a line")
        yield row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    parquet_columns(path)
    yield from parquet_rows(path, ())


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file, which may be gzipped; `DataError` where it breaks off or is no text."""
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield from file
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: {error}", "a whole file of text in UTF-8") from None
