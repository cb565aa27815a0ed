"""The file that is read: its rows in parts of a fixed size, by number, whichever process asks.

Every row of the file is a row of some part, also one that cannot be used: the output has a row for each.
Which rows make a part depends on their numbers alone, never on the processes or on what was finished before.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from mope.bulk.tables import Columnar, ParquetFile, SavedDataset
from mope.data.datasets_reader import is_saved_dataset, open_saved
from mope.data.jsonstream import values
from mope.data.prompts import prompt_shape
from mope.data.readers import BROKEN, CSV_CELL_CHARS, SUFFIXES, Row, open_table, suffix_of
from mope.data.shapes import Shape
from mope.errors import DataError
from mope.predictor.layout import sha256

IDS = ("id", "custom_id", "request_id", "prompt_id")  # carried through where nobody says what to carry
ROWS = 1024  # a part: long enough to sort texts by size, short enough to lose little at a kill


@dataclass(frozen=True, eq=False)
class Part:
    """Rows `first` to `first + len(rows)`; one that could not be read is the reason why.

    `carried` holds the columns to carry through: a list a name, or an Arrow array with its own type.
    """

    number: int
    first: int
    rows: Sequence[Row | str]
    carried: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A file of prompts. Make one with `open_source`."""

    path: Path
    shape: Shape
    columnar: Columnar | None = None
    carry: tuple[str, ...] = ()
    size: int = ROWS

    def count(self) -> int:
        """Rows of the file; text files are read once for it."""
        if self.columnar:
            return self.columnar.count()
        with closing(_records(self.path)) as records:
            return sum(1 for _ in records)

    def digest(self) -> str:
        """Stands for the content of the file."""
        return self.columnar.digest() if self.columnar else sha256(self.path)

    def parts(self, wanted: Collection[int]) -> Iterator[Part]:
        """The parts with these numbers, in order. Raises `DataError` where the file ends before the last."""
        todo = set(wanted)
        if not todo:
            return
        found = self._columnar(self.columnar, todo) if self.columnar else self._text(todo)
        first = next(found, Part(0, 0, [], {name: [] for name in self.carry}))  # also a file without rows
        with closing(found):
            for part in itertools.chain([first], found):
                if part.number in todo:
                    todo.remove(part.number)
                    yield part
                if not todo:
                    return
        raise DataError(f"{self.path} that ends before its part {min(todo)}", "the rows that were counted")

    def _columnar(self, table: Columnar, wanted: Collection[int]) -> Generator[Part, None, None]:
        asked = list(_heads(self.shape.columns))
        names = tuple(dict.fromkeys([*asked, *self.carry]))
        for number, rows_of in table.read(names, self.size, frozenset(wanted)):
            rows = rows_of.select(asked).to_pylist() if number in wanted else []
            carried = {name: rows_of.column(name).combine_chunks() for name in self.carry}
            yield Part(number, number * self.size, rows, carried)

    def _text(self, wanted: Collection[int]) -> Generator[Part, None, None]:
        with closing(_records(self.path)) as records:
            for number in itertools.count():
                raw = list(itertools.islice(records, self.size))
                if not raw:
                    return
                rows = [_row(record) for record in raw] if number in wanted else []
                carried = {name: [_cell(row, name) for row in rows] for name in self.carry}
                yield Part(number, number * self.size, rows, carried)


def open_source(
    path: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    carry: Sequence[str] | None = None,
    size: int = ROWS,
) -> Source:
    """The file at `path`, or the folder that `datasets` saved there.

    `carry` names columns to carry through, None an id column where there is one.

    Raises `DataError` for a file that is not there, not of a known format, without a prompt or such a column.
    """
    saved = path.is_dir() and is_saved_dataset(path)
    if not saved and not path.is_file():
        raise DataError(f"no file {str(path)!r}", "a file of prompts", "check the path")
    if not saved and not suffix_of(path):
        raise DataError(f"file {str(path)!r}", f"a name that ends in one of {', '.join(SUFFIXES)}")
    table = open_saved(path) if saved else open_table(path)
    shape = prompt_shape(table.columns, str(path), mapping)
    columnar = SavedDataset(path) if saved else ParquetFile(path) if suffix_of(path) == ".parquet" else None
    names = columnar.names if columnar else _heads(table.columns)
    if carry is None:
        carry = [name for name in IDS if name in names][:1]
    for name in carry:
        if name not in names:
            raise DataError(f"no column {name!r} in {path}", f"columns out of {', '.join(names)}")
    return Source(path, shape, columnar, tuple(dict.fromkeys(carry)), size)


def _heads(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column.partition(".")[0] for column in columns))


def _records(path: Path) -> Generator[object, None, None]:
    """Each record once: the bytes of a JSONL line, or what CSV and JSON make of it."""
    plain = suffix_of(path).removesuffix(".gz")
    reader = {".csv": _csv, ".json": _json}.get(plain, _lines)
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as handle:
            yield from reader(cast("IO[bytes]", handle))
    except BROKEN as cause:
        raise DataError(
            f"{path} cannot be read: {str(cause)[:200]}", f"a whole {suffix_of(path)} file in UTF-8"
        ) from cause


def _lines(handle: IO[bytes]) -> Iterator[object]:
    array = handle.read(64).lstrip().startswith(b"[")
    handle.seek(0)
    if array:
        yield from _json(handle)
    else:
        yield from (line for line in handle if line.strip())


def _json(handle: IO[bytes]) -> Iterator[object]:
    with io.TextIOWrapper(handle, encoding="utf-8-sig") as text:
        yield from values(text)


def _csv(handle: IO[bytes]) -> Iterator[object]:
    csv.field_size_limit(max(csv.field_size_limit(), CSV_CELL_CHARS))
    with io.TextIOWrapper(handle, encoding="utf-8-sig", newline="") as text:
        yield from csv.DictReader(text)


def _row(record: object) -> Row | str:
    """A record as a row, or why it is none."""
    if isinstance(record, bytes):
        try:
            record = json.loads(record)
        except UnicodeDecodeError:
            return "not UTF-8"
        except (ValueError, RecursionError):
            return "not JSON"
    if not isinstance(record, dict):
        return "row is not an object"
    # Cells that have no column stand under None: a quote or comma went wrong in this line.
    return "row has more cells than columns" if None in record else record


def _cell(row: Row | str, name: str) -> object:
    return None if isinstance(row, str) else row.get(name)
