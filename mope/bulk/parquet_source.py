"""Parquet files streamed through `datasets`, some columns and a fixed number of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mope.errors import DataError
from mope.extras import require


def count_rows(path: Path) -> int:
    """Rows of the file, from its footer."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    return int(pq.read_metadata(path).num_rows)


def top_names(path: Path) -> tuple[str, ...]:
    """Names of the columns, structs whole."""
    import pyarrow.parquet as pq

    return tuple(pq.read_schema(path).names)


def parquet_tables(path: Path, columns: Sequence[str], size: int) -> Iterator[Any]:
    """An Arrow table of these columns for each `size` rows, the last one shorter."""
    require("data", "reading parquet")
    import datasets  # type: ignore[import-untyped]
    import pyarrow as pa
    from datasets.exceptions import DatasetsError  # type: ignore[import-untyped]

    try:
        # Without a batch size of its own the reader decodes a row group whole, however large it is.
        stream = datasets.load_dataset(
            "parquet", data_files=str(path), split="train", streaming=True,
            columns=list(columns), batch_size=size,
        )  # fmt: skip
        yield from stream.with_format("arrow").iter(batch_size=size)
    except (OSError, ValueError, LookupError, TypeError, DatasetsError, pa.ArrowException) as cause:
        raise DataError(
            f"{path} cannot be read: {str(cause)[:200]}",
            "a whole parquet file",
            "check that it was downloaded in full and that its ending names its format",
        ) from cause
