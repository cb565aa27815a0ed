"""Rows on disk, in whatever form the file's name asks for."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("a.jsonl", rows)` -> path."""

    def write_rows(name: str, rows: Sequence[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[path.name.removesuffix(".gz").rpartition(".")[2]](path, rows)
        return path

    return write_rows


def _text(path: Path, text: str) -> None:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import io

    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    _text(path, out.getvalue())


def _parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)


WRITERS: dict[str, Callable[[Path, Sequence[Any]], None]] = {
    "jsonl": lambda path, rows: _text(path, "".join(json.dumps(row) + "\n" for row in rows)),
    "json": lambda path, rows: _text(path, json.dumps(rows, indent=1)),
    "csv": _csv,
    "parquet": _parquet,
}
