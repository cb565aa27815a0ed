"""Shards as small Parquet files, and the whole as one with row groups of a useful size."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from mope.bulk.forms import partial
from mope.bulk.shard import ERROR, ROW, Shard
from mope.data.values import clean

GROUP = 16  # shards a row group: 16,384 rows as shards are


class Parquet:
    """Carried columns keep their Arrow type; those of JSONL and CSV, which have none, are text (JSON where not)."""

    suffix = ".parquet"

    def write(self, path: Path, shard: Shard) -> None:
        """See `Form`."""
        with partial(path) as name:
            pq.write_table(pa.table(_arrays(shard)), name)

    def merge(self, shards: Sequence[Path], target: Path) -> Counter[str]:
        """See `Form`."""
        errors: Counter[str] = Counter()
        schema = pq.read_schema(shards[0])
        with pq.ParquetWriter(target, schema) as whole:
            for tables in _groups(shards, schema):
                errors.update(error for error in tables.column(ERROR).to_pylist() if error)
                whole.write_table(tables, row_group_size=max(1, len(tables)))
        return errors


def _groups(shards: Sequence[Path], schema: Any) -> Iterator[Any]:
    for start in range(0, len(shards), GROUP):
        tables = [_table(path).cast(schema) for path in shards[start : start + GROUP]]
        yield pa.concat_tables(tables).combine_chunks()


def _table(path: Path) -> Any:
    with pq.ParquetFile(path) as file:
        return file.read()


def _arrays(shard: Shard) -> dict[str, Any]:
    found = np.full(len(shard), -1)
    found[shard.places] = np.arange(len(shard.places))
    where = pa.array(found, mask=found < 0)
    arrays: dict[str, Any] = {ROW: pa.array(np.arange(shard.first, shard.first + len(shard), dtype=np.int64))}
    for name, values in shard.carried.items():
        arrays[name] = pa.array(map(_text, values), pa.string()) if isinstance(values, list) else values
    for name, column in shard.columns.items():
        arrays[name] = pa.array(column, from_pandas=True).take(where)
    return arrays | {ERROR: pa.array([error or None for error in shard.errors], pa.string())}


def _text(value: object) -> str | None:
    if value is None:
        return None
    return clean(value) if isinstance(value, str) else json.dumps(value)
