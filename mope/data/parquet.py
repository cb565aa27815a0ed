"""Parquet files into rows, a batch at a time and only the columns asked for."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mope.errors import DataError
from mope.extras import require

BATCH_ROWS = 4096


def parquet_columns(path: Path) -> tuple[str, ...]:
    """Column names, those inside structs as paths. Raises `DataError` where it is no parquet file."""
    require("data", "reading parquet")
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException) as cause:
        raise _broken(path, cause) from cause
    columns = tuple(name for field in schema for name in _paths(field))
    if not columns:
        raise DataError(f"{path} has no columns", "rows with named columns")
    return columns


def parquet_rows(path: Path, columns: Sequence[str]) -> Generator[Mapping[str, object], None, None]:
    """Rows as mappings that hold at least `columns` (all columns where none is named)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            wanted = _top_level(file.schema_arrow.names, columns)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                yield from batch_rows(batch)
    except (OSError, ValueError, pa.ArrowException) as cause:
        raise _broken(path, cause) from cause


def batch_rows(batch: Any) -> Iterator[Mapping[str, object]]:
    """The rows of an Arrow record batch."""
    names = batch.schema.names
    cells = [column.to_pylist() for column in batch.columns]
    return (dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True))


def _top_level(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    heads = {column if column in names else column.partition(".")[0] for column in columns}
    return [name for name in names if not columns or name in heads]


def _paths(field: Any) -> Iterator[str]:
    import pyarrow as pa

    if pa.types.is_struct(field.type) and field.type.num_fields:
        for inner in field.type:
            yield from (f"{field.name}.{path}" for path in _paths(inner))
    else:
        yield field.name


def _broken(path: Path, cause: BaseException) -> DataError:
    return DataError(
        f"{path} cannot be read: {str(cause)[:200]}",
        "a whole parquet file",
        "check that it was downloaded in full and that its ending names its format",
    )
