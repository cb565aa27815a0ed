"""What the user named, as a list of things to read: single tables, and pairs of tables to be joined."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mope.data.datasets_reader import is_saved_dataset, open_hub, open_saved
from mope.data.readers import SUFFIXES, Table, open_table, suffix_of
from mope.errors import DataError

HUB_ID = re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+")
# Written beside the data by `datasets`, no data themselves.
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json")
PROMPTS, LENGTHS = "_prompts", "_lengths"


@dataclass(frozen=True)
class Source:
    """A saved dataset, a Hub id or a file; `lengths` is the table to be joined to it on `prompt_id`."""

    path: Path | str
    lengths: Path | None = None

    def open(self) -> Table:
        """The table itself (of a pair: the one with the prompts)."""
        if isinstance(self.path, str):
            return open_hub(self.path)
        return open_saved(self.path) if self.path.is_dir() else open_table(self.path)


def find_sources(paths: Sequence[str | Path], notes: list[str]) -> list[Source]:
    """Everything to read under `paths`, each once, files of a folder by name.

    Raises `DataError` for a path that is not there, a file of another format and a folder without data.
    """
    if not paths:
        raise DataError("no data", "files, folders or a dataset id", "name at least one")
    found: dict[Source, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_sources(path, notes)))
    return list(found)


def _sources(name: str | Path, notes: list[str]) -> Iterator[Source]:
    path = Path(name)
    if not os.path.exists(path):
        yield _hub(str(name), path)
    elif not path.is_dir():
        if not suffix_of(path):
            raise DataError(
                f"{path} of an unknown format", f"a name that ends in one of {', '.join(SUFFIXES)}"
            )
        yield _file(path)
    elif is_saved_dataset(path):
        yield Source(path)
    else:
        yield from _folder(path, notes)


def _hub(name: str, path: Path) -> Source:
    if HUB_ID.fullmatch(name) and not suffix_of(path) and not os.path.isdir(path.parent):
        return Source(name)
    raise DataError(
        f"{name} does not exist", "a file, a folder or a dataset id (owner/name)", "check the path"
    )


def _folder(folder: Path, notes: list[str]) -> Iterator[Source]:
    other = 0
    empty = True
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if is_saved_dataset(Path(place)):
            folders.clear()
            empty = False
            yield Source(Path(place))
            continue
        files = [Path(place, name) for name in sorted(names) if not name.startswith(".")]
        data = [file for file in files if suffix_of(file) and file.name not in DESCRIPTIONS]
        other += len(files) - len(data)
        empty = empty and not data
        yield from map(_file, data)
    if empty:
        raise DataError(f"{folder} holds no data", f"files that end in one of {', '.join(SUFFIXES)}")
    if other:
        notes.append(f"{folder}: {other} files of other formats were left alone")


def _file(path: Path) -> Source:
    """The file, or the pair it belongs to: X_prompts beside X_lengths."""
    stem = path.name[: len(path.name) - len(suffix_of(path))]
    for own, other in ((PROMPTS, LENGTHS), (LENGTHS, PROMPTS)):
        if stem.endswith(own):
            partner = _sibling(path, stem.removesuffix(own) + other)
            if partner:
                return Source(path, partner) if own == PROMPTS else Source(partner, path)
    return Source(path)


def _sibling(path: Path, stem: str) -> Path | None:
    places = (path.with_name(stem + suffix) for suffix in (suffix_of(path), *SUFFIXES))
    return next((place for place in places if place.is_file()), None)
