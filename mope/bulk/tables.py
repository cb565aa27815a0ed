"""Columnar inputs as Arrow tables of a fixed number of rows: Parquet files, and folders saved by `datasets`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mope.errors import DataError
from mope.extras import require
from mope.predictor.layout import sha256

BUFFER = 1 << 20


class Columnar(Protocol):
    """A table whose columns are read apart."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, structs whole."""

    def count(self) -> int:
        """Rows."""

    def digest(self) -> str:
        """Stands for the content."""

    def read(self, columns: Sequence[str], size: int, wanted: Collection[int]) -> Iterator[tuple[int, Any]]:
        """(number, Arrow table) of at least the wanted parts of `size` rows, in order, with these columns."""


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file, read page by page.

    Not by the streaming reader of `datasets`: that decodes a row group at a time, and most writers make groups of
    a million rows (docs/bulk.md has the figures).
    """

    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        """See `Columnar`."""
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        return tuple(_guarded(self.path, lambda: pq.read_schema(self.path).names))

    def count(self) -> int:
        """See `Columnar`."""
        import pyarrow.parquet as pq

        return int(_guarded(self.path, lambda: pq.read_metadata(self.path).num_rows))

    def digest(self) -> str:
        """See `Columnar`."""
        return sha256(self.path)

    def read(self, columns: Sequence[str], size: int, wanted: Collection[int]) -> Iterator[tuple[int, Any]]:
        """See `Columnar`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        del wanted
        with pq.ParquetFile(self.path, buffer_size=BUFFER, pre_buffer=False) as file:
            batches = file.iter_batches(batch_size=size, columns=list(columns))
            number, waiting, rows = 0, [], 0
            while (batch := _guarded(self.path, lambda: next(batches, None))) is not None:
                waiting.append(batch)
                rows += len(batch)
                if rows >= size:
                    table = pa.Table.from_batches(waiting)
                    yield number, table.slice(0, size)
                    waiting, rows, number = table.slice(size).to_batches(), rows - size, number + 1
            if rows:
                yield number, pa.Table.from_batches(waiting)


@dataclass(frozen=True)
class SavedDataset:
    """A folder written by `save_to_disk`, all its splits one after another."""

    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        """See `Columnar`."""
        return tuple(self._load().column_names)

    def count(self) -> int:
        """See `Columnar`."""
        return len(self._load())

    def digest(self) -> str:
        """See `Columnar`."""
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        lines = [f"{path.relative_to(self.path).as_posix()} {sha256(path)}\n" for path in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def read(self, columns: Sequence[str], size: int, wanted: Collection[int]) -> Iterator[tuple[int, Any]]:
        """See `Columnar`."""
        table = self._load().select_columns(list(columns)).with_format("arrow")
        for number in sorted(wanted):
            if number * size < len(table):
                yield number, table[number * size : (number + 1) * size]

    def _load(self) -> Any:
        require("data", f"reading {self.path}")
        import datasets  # type: ignore[import-untyped]

        def load() -> Any:
            loaded = datasets.load_from_disk(str(self.path))
            return (
                loaded
                if isinstance(loaded, datasets.Dataset)
                else datasets.concatenate_datasets([*loaded.values()])
            )

        return _guarded(self.path, load)


def _guarded(path: Path, function: Callable[[], Any]) -> Any:
    """What `function` returns; what the libraries raise becomes a `DataError`."""
    require("data", f"reading {path}")
    import pyarrow as pa

    try:
        return function()
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as cause:
        raise DataError(
            f"{path} cannot be read: {str(cause)[:200]}",
            "a whole parquet file, or a folder written by save_to_disk",
            "check that it was downloaded in full and that its ending names its format",
        ) from cause
