"""What an unfinished run leaves beside its output, and whether another run may go on with it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import mope
from mope.bulk.forms import partial
from mope.bulk.work import Work
from mope.errors import BadInput, DataError

FORMAT = 1
RECORD, LOCK = "job.json", "lock"


@dataclass(frozen=True)
class Record:
    """`settings`: all that the output depends on. `errors` by reason, once the whole output was written."""

    settings: Mapping[str, object]
    rows: int
    errors: Mapping[str, int] | None = None

    @property
    def shards(self) -> int:
        """How many there are; a file without rows has an empty one."""
        return max(1, -(-self.rows // int(str(self.settings["shard_rows"]))))


def check_output(path: Path, output: Path) -> None:
    """Raise `BadInput` for an output that cannot be written, or that is the input."""
    if not output.parent.is_dir():
        raise DataError(f"output {str(output)!r} in a folder that is not there", "a folder", "make it first")
    if output.is_dir():
        raise DataError(f"output {str(output)!r}, which is a folder", "a file name")
    if output.exists() and path.exists() and output.samefile(path):
        raise DataError(f"{path} as input and output", "two different files")


def folder_of(output: Path) -> Path:
    """Where the shards of an unfinished run are kept."""
    return output.with_name(output.name + ".parts")


@contextmanager
def open_folder(job: Work, resume: bool, force: bool) -> Iterator[Record]:
    """The record of this run, new or taken up, in a folder that no other run works in meanwhile.

    Raises `BadInput` where something is in the way, or where the unfinished run was another one.
    """
    folder = job.folder
    if folder.exists() and not (resume or force):
        raise BadInput(
            f"an unfinished run in {str(folder)!r}",
            "a fresh start",
            "go on with --resume, or start over with --force",
        )
    left = folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(
            f"folder {str(folder)!r} ({error.strerror})", "a place beside the output for finished shards"
        ) from None
    with _locked(folder):
        old = read(folder) if resume else None
        if job.output.exists() and not force and not (old and old.errors is not None):
            if not left:
                remove(folder)
            raise BadInput(f"output {str(job.output)!r}, which is there already", "a new name", "or --force")
        yield _taken_up(job, old) if old else _begun(job)


def read(folder: Path) -> Record | None:
    """The record in a work folder; None where none was written yet."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Record(found["settings"], int(found["rows"]), found["errors"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(
            f"{folder / RECORD} cannot be read ({error})", "the file mope wrote", "start over with --force"
        ) from None


def write(folder: Path, record: Record) -> None:
    """Note the state of the run, whole or not at all."""
    with partial(folder / RECORD) as name:
        content = {"settings": record.settings, "rows": record.rows, "errors": record.errors}
        name.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def remove(folder: Path) -> None:
    """Take the work folder away; the record last, so that a kill on the way leaves a run that can be taken up."""
    for path in folder.iterdir():
        if path.name not in (RECORD, LOCK):
            path.unlink()
    shutil.rmtree(folder)


def _begun(job: Work) -> Record:
    for path in job.folder.iterdir():
        if path.name != LOCK:
            path.unlink()
    rows = job.source.count()
    begun = Record(_settings(job, rows), rows)
    write(job.folder, begun)
    return begun


def _taken_up(job: Work, old: Record) -> Record:
    now = json.loads(json.dumps(_settings(job, job.source.count())))
    changed = [
        f"{name} was {old.settings.get(name)!r}, is {now.get(name)!r}"
        for name in dict.fromkeys([*now, *old.settings])
        if old.settings.get(name) != now.get(name)
    ]
    if changed:
        raise BadInput(
            f"--resume of a run that differs: {'; '.join(changed)}",
            "the input and the settings that it began with",
            "repeat those, or start over with --force without --resume",
        )
    return old


def _settings(job: Work, rows: int) -> dict[str, object]:
    source = job.source
    own: dict[str, object] = {
        "format": FORMAT, "mope": mope.__version__, "input_sha256": source.digest(), "rows": rows,
        "shard_rows": source.size, "fields": dict(source.shape.fields), "columns": list(source.carry),
        "output": job.output.suffix, "model": job.model, "max_tokens": job.max_tokens,
    }  # fmt: skip
    return own | dict(job.maker.settings())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Refuse a second run at the same time; the lock goes with the process, however that ends."""
    with (folder / LOCK).open("w") as file:
        if os.name == "posix":
            _lock(file, folder)
        yield


def _lock(file: IO[str], folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise BadInput(
            f"{str(folder)!r}, in which another run is at work", "one run for one output", "let it end first"
        ) from None
