"""Tables of the `datasets` library: a folder written by `save_to_disk`, or a Hub id read as a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mope.data.readers import Row, Table, columns_of, objects
from mope.errors import DataError
from mope.extras import require

MARKS = ("dataset_dict.json", "state.json")


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((path / mark).is_file() for mark in MARKS)


def open_saved(path: Path) -> Table:
    """The rows of a saved dataset, all its splits one after another."""
    return _table(str(path), path.name, partial(_load_saved, path))


def open_hub(name: str) -> Table:
    """The rows of a dataset on the Hub, all its splits one after another, streamed."""
    return _table(name, name.rpartition("/")[2], partial(_load_hub, name))


def _load_saved(path: Path) -> Any:
    import datasets  # type: ignore[import-untyped]

    return datasets.load_from_disk(str(path))


def _load_hub(name: str) -> Any:
    import datasets

    return datasets.load_dataset(name, streaming=True)


def _table(name: str, stem: str, load: Any) -> Table:
    require("data", f"reading {name}")
    rows = partial(_guarded, name, load)
    return Table(name, stem, columns_of(name, rows), rows)


def _guarded(
    name: str, load: Any, columns: Sequence[str], refused: Counter[str]
) -> Generator[Row, None, None]:
    try:
        loaded = load()
        for split in loaded.values() if isinstance(loaded, Mapping) else (loaded,):
            yield from objects(_only(split, columns), refused)
    except _errors() as cause:
        raise DataError(
            f"dataset {name} cannot be read: {str(cause)[:300]}",
            "a folder written by save_to_disk, or the id of a public dataset on the Hub",
            "check the name and the connection, or download its files and give their paths",
        ) from cause


def _only(split: Any, columns: Sequence[str]) -> Any:
    """`split` without the columns nobody looks at: images and embeddings are not decoded."""
    names = split.column_names
    if not columns or not names:
        return split
    heads = {column if column in names else column.partition(".")[0] for column in columns}
    return split.select_columns([name for name in names if name in heads])


def _errors() -> tuple[type[Exception], ...]:
    """What loading and streaming raise; `datasets` and its clients have several roots."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from datasets.exceptions import DatasetsError  # type: ignore[import-untyped]
    from huggingface_hub.errors import HfHubHTTPError

    # Which HTTP client is below differs by version; its root error is a base of this one.
    clients = HfHubHTTPError.__bases__
    return (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RuntimeError,
        DatasetsError,
        pa.ArrowException,
        *clients,
    )
