"""Files into rows: one reader for each format, chosen by the ending of the name.

A reader yields rows one after another and holds few of them; what is no row at all is counted in `refused`.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from mope.data.jsonstream import values
from mope.data.parquet import parquet_columns, parquet_rows
from mope.errors import DataError

Row = Mapping[str, object]
Rows = Callable[[Sequence[str], Counter[str]], Generator[Row, None, None]]

SUFFIXES = (
    ".parquet",
    ".jsonl",
    ".jsonl.gz",
    ".ndjson",
    ".ndjson.gz",
    ".json",
    ".json.gz",
    ".csv",
    ".csv.gz",
)
LOOK_AHEAD = 200
CSV_CELL_CHARS = 1 << 27

BROKEN = (OSError, EOFError, zlib.error, ValueError, csv.Error, RecursionError)


@dataclass(frozen=True)
class Table:
    """Rows under a name. `rows(columns, refused)` reads them from the start, `columns` at least."""

    name: str
    stem: str
    columns: tuple[str, ...]
    rows: Rows


def suffix_of(path: Path) -> str:
    """The ending that names the format, empty where it is none of `SUFFIXES`."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def open_table(path: Path) -> Table:
    """The table in a file. Raises `DataError` where it cannot be read or holds no row."""
    suffix = suffix_of(path)
    stem = path.name[: len(path.name) - len(suffix)]
    if suffix == ".parquet":
        return Table(str(path), stem, parquet_columns(path), partial(_parquet, path))
    plain = suffix.removesuffix(".gz")
    reader = {".csv": _csv, ".json": _json}.get(plain, _jsonl)
    rows = partial(_guarded, path, reader)
    return Table(str(path), stem, columns_of(str(path), rows), rows)


def columns_of(name: str, rows: Rows) -> tuple[str, ...]:
    """Names of the columns in the first `LOOK_AHEAD` rows, nested ones as paths."""
    refused: Counter[str] = Counter()
    columns: dict[str, None] = {}
    with closing(rows((), refused)) as found:
        for row in itertools.islice(found, LOOK_AHEAD):
            columns.update(dict.fromkeys(_paths(row)))
    if not columns:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in refused.most_common())
        raise DataError(
            f"{name} holds no rows" + (f" ({reasons})" if reasons else ""), "rows with named columns"
        )
    return tuple(columns)


def _paths(row: Row, depth: int = 4) -> Iterator[str]:
    for key, value in row.items():
        if isinstance(value, Mapping) and depth:
            yield from (f"{key}.{path}" for path in _paths(value, depth - 1))
        else:
            yield key


def objects(found: Iterable[object], refused: Counter[str]) -> Iterator[Row]:
    """The rows that are objects with text keys; the others are counted."""
    for row in found:
        if isinstance(row, dict):
            yield cast(Row, row)
        else:
            refused["row is not an object"] += 1


def _parquet(path: Path, columns: Sequence[str], refused: Counter[str]) -> Generator[Row, None, None]:
    del refused
    return parquet_rows(path, columns)


def _guarded(
    path: Path,
    reader: Callable[[IO[bytes], Counter[str]], Iterator[Row]],
    _: Sequence[str],
    refused: Counter[str],
) -> Generator[Row, None, None]:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as handle:
            yield from reader(cast("IO[bytes]", handle), refused)
    except BROKEN as cause:
        raise DataError(
            f"{path} cannot be read: {str(cause)[:200]}",
            f"a whole {suffix_of(path)} file in UTF-8",
            "check that it was downloaded in full and that its ending names its format",
        ) from cause


def _jsonl(handle: IO[bytes], refused: Counter[str]) -> Iterator[Row]:
    """One JSON object a line; a broken line costs that line alone. An array is read as an array."""
    array = handle.read(64).lstrip().startswith(b"[")
    handle.seek(0)
    if array:
        yield from _json(handle, refused)
        return
    for line in handle:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except UnicodeDecodeError:
            refused["not UTF-8"] += 1
        except (ValueError, RecursionError):
            refused["not JSON"] += 1
        else:
            yield from objects([row], refused)


def _json(handle: IO[bytes], refused: Counter[str]) -> Iterator[Row]:
    with io.TextIOWrapper(handle, encoding="utf-8-sig") as text:
        yield from objects(values(text), refused)


def _csv(handle: IO[bytes], refused: Counter[str]) -> Iterator[Row]:
    # The limit belongs to the whole process and its default, 131,072, is below one long chat.
    csv.field_size_limit(max(csv.field_size_limit(), CSV_CELL_CHARS))
    with io.TextIOWrapper(handle, encoding="utf-8-sig", newline="") as text:
        for row in csv.DictReader(text):
            # Cells that have no column stand under None: a quote or comma went wrong in this line.
            if None in row:
                refused["row has more cells than columns"] += 1
            else:
                yield cast(Row, row)
