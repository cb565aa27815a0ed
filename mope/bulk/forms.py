"""How shards are written, and how they become one file: JSONL on the base install, Parquet with pyarrow.

Both are written from the same shards in the order of their numbers, so a file's bytes do not tell how often the
run was stopped or how many processes shared it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mope.bulk.shard import ERROR, ROW, Shard
from mope.errors import ConfigError, MopeError
from mope.extras import require


class Form(Protocol):
    """A file format of the output."""

    suffix: str

    def write(self, path: Path, shard: Shard) -> None:
        """A shard under a name of its own, whole or not at all."""

    def merge(self, shards: Sequence[Path], target: Path) -> Counter[str]:
        """All shards, in order, as one file; returns the errors by reason."""


def form_of(output: Path) -> Form:
    """The form that a file name asks for. Raises `ConfigError`, and `MissingExtra` for Parquet without pyarrow."""
    if output.suffix == ".jsonl":
        return Jsonl()
    if output.suffix == ".parquet":
        require("data", "writing parquet")
        from mope.bulk.parquet_form import Parquet

        return Parquet()
    raise ConfigError(f"output {str(output)!r}", "a name that ends in .parquet or .jsonl")


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A name beside `path`, renamed to it when the block ends well; the folder must be there already.

    Raises `MopeError` where the disk does not take it.
    """
    name = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield name
        os.replace(name, path)
    except OSError as error:
        raise MopeError(
            f"{path} cannot be written ({error.strerror or error}); what was finished is kept: go on with --resume"
        ) from error


class Jsonl:
    """One object a line. The first line of a shard counts its errors and is left out of the whole."""

    suffix = ".jsonl"

    def write(self, path: Path, shard: Shard) -> None:
        """See `Form`."""
        names, cells = zip(*_cells(shard).items(), strict=True)
        counts = Counter(error for error in shard.errors if error)
        with partial(path) as name, name.open("w", encoding="utf-8") as file:
            file.write(json.dumps(counts) + "\n")
            for row in zip(*cells, strict=True):
                file.write(_line(dict(zip(names, row, strict=True))))

    def merge(self, shards: Sequence[Path], target: Path) -> Counter[str]:
        """See `Form`."""
        errors: Counter[str] = Counter()
        with target.open("wb") as whole:
            for path in shards:
                with path.open("rb") as shard:
                    errors.update(json.loads(shard.readline()))
                    shutil.copyfileobj(shard, whole)
        return errors


def _cells(shard: Shard) -> dict[str, list[Any]]:
    """Every column as a list of n values, None where a row has none."""
    cells: dict[str, list[Any]] = {ROW: list(range(shard.first, shard.first + len(shard)))}
    for name, values in shard.carried.items():
        cells[name] = values if isinstance(values, list) else values.to_pylist()
    for name, column in shard.columns.items():
        filled = np.full(len(shard), None, object)
        filled[shard.places] = column.tolist()
        cells[name] = filled.tolist()
    return cells | {ERROR: [error or None for error in shard.errors]}


def _line(row: dict[str, Any]) -> str:
    row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    try:
        return json.dumps(row, default=str, allow_nan=False) + "\n"
    except ValueError:  # a number inside a carried value that JSON does not have
        return json.dumps({k: _finite(v) for k, v in row.items()}, default=str) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
