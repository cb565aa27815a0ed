"""The loop of one process over its shards, and the processes that we start for it."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mope.bulk.answers import Answer, Maker
from mope.bulk.forms import form_of
from mope.bulk.places import bind
from mope.bulk.shard import forecast_part
from mope.bulk.source import Source
from mope.errors import MopeError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

POLL_S = 0.5


@dataclass(frozen=True)
class Work:
    """What every process is told: where to read, what to answer, where to leave the shards."""

    source: Source
    maker: Maker
    folder: Path
    output: Path
    model: str | None = None
    max_tokens: int | None = None

    def shard(self, number: int) -> Path:
        """The file of a finished shard."""
        return self.folder / f"{number:08d}{self.output.suffix}"

    def finished(self) -> set[int]:
        """Numbers of the shards that are there."""
        with os.scandir(self.folder) as entries:
            stems = (e.name.removesuffix(self.output.suffix) for e in entries)
            return {int(stem) for stem in stems if stem.isdecimal()}


def work(job: Work, todo: Sequence[int], answer: Answer, after: Callable[[], None] = lambda: None) -> None:
    """Predict and write the shards `todo`."""
    form = form_of(job.output)
    for part in job.source.parts(todo):
        shard = forecast_part(part, job.source.shape, answer, job.model, job.max_tokens)
        form.write(job.shard(part.number), shard)
        after()


def work_in_processes(
    job: Work, todo: Sequence[int], devices: Sequence[str], tell: Callable[[], None]
) -> None:
    """The shards `todo` by one process a device; `tell` is called now and then. The first failure ends all."""
    context = mp.get_context("spawn")  # a fork would copy the locks of running threads
    failures = context.SimpleQueue()
    tasks = [(job, todo[i :: len(devices)], device, failures) for i, device in enumerate(devices)]
    processes = [context.Process(target=_child, args=task, daemon=True) for task in tasks if task[1]]
    try:
        for process in processes:
            process.start()
        while waiting := [p.sentinel for p in processes if p.exitcode is None]:
            wait(waiting, timeout=POLL_S)
            _check(processes, failures)
            tell()
        _check(processes, failures)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()  # shards are renamed when they are whole: nothing is lost that was finished
                process.join()


def _check(processes: Sequence[BaseProcess], failures: Any) -> None:
    if not failures.empty():
        raise failures.get()
    ended = [p.exitcode for p in processes if p.exitcode]
    if ended:
        how = f"by signal {-ended[0]} (out of memory?)" if ended[0] < 0 else f"with code {ended[0]}"
        raise MopeError(f"a process ended {how}; what was finished is kept: go on with --resume")


def _child(job: Work, todo: Sequence[int], device: str, failures: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        bind(device)
        work(job, todo, job.maker.open())
    except MopeError as error:
        failures.put(error)
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """A parent that was killed cannot stop us, and an orphan would go on for hours beside a resumed run."""
    parent = mp.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
