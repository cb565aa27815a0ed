"""`predict_file`: a file of prompts into a file of forecasts, through a folder of finished shards.

The folder OUTPUT.parts holds `job.json` (what the run depends on) and each finished shard. A run that was
killed goes on from there, if nothing it depends on has changed. When all shards are there they become one file
under a temporary name, `job.json` says so, the file is renamed, and the folder goes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mope.bulk import record
from mope.bulk.answers import Maker
from mope.bulk.forms import form_of, partial
from mope.bulk.places import Launched, devices, launched
from mope.bulk.record import Record
from mope.bulk.shard import check_names, checked
from mope.bulk.source import ROWS, open_source
from mope.bulk.work import POLL_S, Work, work, work_in_processes

Tell = Callable[[int, int], None]  # rows finished, rows in all


@dataclass(frozen=True)
class Options:
    """How a file is predicted. `columns` are carried through (None: an id); `size` is rows a shard.

    `resume` goes on with an unfinished run, `force` overwrites the output. `processes` None: one a GPU, or one.
    """

    columns: Sequence[str] | None = None
    mapping: Mapping[str, str] | None = None
    model: str | None = None
    max_tokens: int | None = None
    processes: int | None = None
    resume: bool = False
    force: bool = False
    size: int = ROWS


@dataclass(frozen=True)
class Summary:
    """What came of it: rows, those that could not be predicted by reason, those finished before; seconds."""

    rows: int
    errors: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    seconds: float = 0.0


def predict_file(
    path: Path,
    output: Path,
    maker: Maker,
    options: Options | None = None,
    tell: Tell = lambda done, rows: None,
) -> Summary | None:
    """Forecast every row of `path` into `output` (.parquet or .jsonl), in order, one row for one row.

    Memory does not grow with the file. Under `accelerate launch` each process takes its share and only the first
    returns a summary. Raises `BadInput` for what cannot be read, written or resumed.
    """
    options, start, place = options or Options(), time.monotonic(), launched(maker.gpus)
    record.check_output(path, output)
    form_of(output)
    source = open_source(path, mapping=options.mapping, carry=options.columns, size=options.size)
    job = Work(source, maker, record.folder_of(output), output, options.model, options.max_tokens)
    if place and place.index:
        noted, todo = _meet(job, place)
        work(job, todo, maker.open())
        return None
    answer = maker.open()
    check_names(checked(answer([]), 0), source.carry)
    with record.open_folder(job, options.resume, options.force) as noted:
        before = len(job.finished())
        todo = _meet(job, place)[1] if place else _missing(job, noted, 0, 1)
        if noted.errors is None:
            progress = Progress(job, noted.rows, tell)
            where = devices(maker.gpus, options.processes) if place is None else ("",)
            if len(where) == 1:
                work(job, todo, answer, progress)
            else:
                work_in_processes(job, todo, where, progress)
            _wait_for_others(job, noted, progress)
            noted = _merge(job, noted)
        _put_in_place(job)
    assert noted.errors is not None
    done = noted.rows if not todo else min(noted.rows, before * source.size)
    return Summary(noted.rows, Counter(noted.errors), done, time.monotonic() - start)


@dataclass
class Progress:
    """Tells how many rows are finished, by whichever process, now and then."""

    job: Work
    rows: int
    tell: Tell
    next_s: float = 0.0

    def __call__(self) -> None:
        """Look into the folder, unless that was done a moment ago."""
        if (now := time.monotonic()) >= self.next_s:
            self.next_s = now + POLL_S
            self.tell(min(self.rows, len(self.job.finished()) * self.job.source.size), self.rows)


def _meet(job: Work, place: Launched) -> tuple[Record, list[int]]:
    """The record and this process's shards, once the first process has made the folder."""
    place.meet()
    noted = record.read(job.folder)
    assert noted is not None
    todo = [] if noted.errors is not None else _missing(job, noted, place.index, place.count)
    # Until all have looked, nobody takes the folder away.
    place.meet()
    place.leave()
    return noted, todo


def _missing(job: Work, noted: Record, index: int, count: int) -> list[int]:
    """Shards of process `index` of `count` that are not there: every count-th, so that none runs ahead."""
    done = job.finished() if noted.errors is None else range(noted.shards)
    return [number for number in range(index, noted.shards, count) if number not in done]


def _wait_for_others(job: Work, noted: Record, progress: Progress) -> None:
    """The launcher ends this process where another one fails."""
    while len(job.finished()) < noted.shards:
        time.sleep(POLL_S)
        progress()
    progress.tell(noted.rows, noted.rows)


def _merge(job: Work, noted: Record) -> Record:
    """All shards as one file inside the folder; only then the record says that it is whole."""
    shards = [job.shard(number) for number in range(noted.shards)]
    with partial(_whole(job)) as name:
        errors = form_of(job.output).merge(shards, name)
    noted = replace(noted, errors=dict(errors.most_common()))
    record.write(job.folder, noted)
    return noted


def _put_in_place(job: Work) -> None:
    """Rename the whole file, unless a run that was killed here had done so, and take the folder away."""
    if _whole(job).exists():
        os.replace(_whole(job), job.output)
    record.remove(job.folder)


def _whole(job: Work) -> Path:
    return job.folder / f"whole{job.output.suffix}"
