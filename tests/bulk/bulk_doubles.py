"""A forecaster that is exact, and runs that end in the middle; a module of its own for processes to import.

    python bulk_doubles.py INPUT OUTPUT [POINT] [PROCESSES] [SLEEP]

predicts INPUT in shards of 8 rows and dies by SIGKILL at POINT. It prints the peak memory of its process in bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mope.bulk import forms, record, run
from mope.errors import ConfigError
from mope.types import Request

SIZE = 8


@dataclass(frozen=True)
class Exact:
    """The prompt's characters, and the characters of its whole batch: a change of neighbours shows."""

    mark: str = "a"
    dies_at: int = 0
    sleep_s: float = 0.0
    pids: str = ""
    gpus: int = 0

    def settings(self) -> Mapping[str, object]:
        return {"forecast": "exact", "mark": self.mark}

    def open(self) -> Callable[[Sequence[Request]], dict[str, Any]]:
        calls = 0
        if self.pids:
            Path(self.pids, str(os.getpid())).touch()

        def answer(requests: Sequence[Request]) -> dict[str, Any]:
            nonlocal calls
            calls += bool(requests)
            if calls == self.dies_at > 0:
                die()
            time.sleep(self.sleep_s)
            sizes = np.array([len(request.prompt) for request in requests], np.int64)
            together = np.full(len(requests), sizes.sum() if len(sizes) else 0, np.float64)
            return {
                "size": sizes,
                "together": together,
                "who": np.array([r.model or "" for r in requests], str),
            }

        return answer


@dataclass(frozen=True)
class Home(Exact):
    """Opens in the first process only; answers `extra` values too many."""

    extra: int = 0

    def open(self) -> Callable[[Sequence[Request]], dict[str, Any]]:
        if multiprocessing.parent_process():
            raise ConfigError("a process of its own", "the first")
        return lambda requests: {"size": np.zeros(len(requests) + self.extra)}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    def dying(*args: Any, **named: Any) -> Any:
        function(*args, **named)
        die()

    return dying


def before_nth(function: Callable[..., Any], n: int) -> Callable[..., Any]:
    calls = 0

    def dying(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == n:
            die()
        return function(*args, **named)

    return dying


def set_trap(point: str) -> Exact:
    """The forecaster of a run that dies at `point`."""
    if point.startswith("answer"):
        return Exact(dies_at=int(point[6:]))
    if point.startswith(
        "rename"
    ):  # the record is renamed first, then each shard, the record again, the whole
        os.replace = before_nth(os.replace, int(point[6:]))
    elif point == "merged":
        forms.Jsonl.merge = after(forms.Jsonl.merge)  # type: ignore[method-assign]
    elif point == "placed":
        record.remove = after(lambda folder: None)
    elif point == "removing":
        Path.unlink = after(Path.unlink)  # type: ignore[method-assign]
    return Exact()


def peak_bytes() -> int:
    """Peak resident memory. Linux keeps that of the parent in `ru_maxrss` over an exec, but not in VmHWM."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(source: str, output: str, point: str = "", processes: str = "1", sleep_s: str = "0") -> None:
    size = SIZE if point != "measure" else 1024
    maker = set_trap(point)
    if float(sleep_s):
        maker = Exact(sleep_s=float(sleep_s), pids=str(Path(output).parent))
    run.predict_file(Path(source), Path(output), maker, run.Options(processes=int(processes), size=size))
    sys.stdout.write(f"{peak_bytes()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
