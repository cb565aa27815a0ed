"""The log of requests: one line for each that is over, written as it happens, readable at any time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from mope.errors import DataError
from mope.sim.sequence import Sequence

COLUMNS = (
    "id", "client", "arrival_s", "admitted_s", "first_s", "finish_s", "prompt_tokens", "output_tokens",
    "asked_tokens", "preempted", "status",
)  # fmt: skip
DONE = "done"
Floats = NDArray[np.float64]


class Log:
    """Rows of requests, kept in memory or streamed to a file; `count` by status."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.rows: list[tuple[object, ...]] = []
        self.count: dict[str, int] = {}
        self._file = file
        if file is not None and not file.tell():
            file.write(",".join(COLUMNS) + "\n")

    def write(self, seq: Sequence, finish_s: float, status: str = DONE) -> None:
        """A request is over: done, or refused for the reason in `status`."""
        self.count[status] = self.count.get(status, 0) + 1
        if self._file is None:
            self.rows.append(
                (
                    seq.number, seq.client, seq.arrival_s, seq.admitted_s, seq.first_s, finish_s, seq.prompt,
                    seq.made, seq.output, seq.preempted, status,
                )
            )  # fmt: skip
        else:
            self._file.write(
                f"{seq.number},{self._name(seq.client)},{seq.arrival_s!r},{seq.admitted_s!r},{seq.first_s!r},{finish_s!r},"
                f"{seq.prompt},{seq.made},{seq.output},{seq.preempted},{status}\n"
            )

    def _name(self, client: str) -> str:
        """A client's name as CSV has it."""
        return f'"{client}"' if "," in client else client

    def flush(self) -> int:
        """Bring all rows to the file; gives its length in bytes."""
        assert self._file is not None
        self._file.flush()
        return self._file.tell()

    def requests(self) -> Requests:
        """What is kept in memory, as columns."""
        return _columns(iter(self.rows))


@dataclass(frozen=True)
class Requests:
    """A log as columns [n], in the order of `id`. Times in seconds; NaN where something never happened.

    `output_tokens` were made; `asked_tokens` would have been, had the request been served to its end.
    """

    id: NDArray[np.int64]
    client: NDArray[np.str_]
    arrival_s: Floats
    admitted_s: Floats
    first_s: Floats
    finish_s: Floats
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    asked_tokens: NDArray[np.int64]
    preempted: NDArray[np.int64]
    status: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.id)

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which were served to the end."""
        return np.asarray(self.status == DONE)

    def take(self, chosen: NDArray[np.bool_]) -> Requests:
        """The chosen rows."""
        return Requests(*(getattr(self, name)[chosen] for name in COLUMNS))


def read_log(path: str | Path) -> Requests:
    """The log in a file. A last line that was cut off is left out; raises `DataError` on any other fault."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return _columns(_rows(file, path))
    except OSError as error:
        raise DataError(f"{path}: {error}", "a request log") from None


def _rows(file: TextIO, path: Path) -> Iterator[list[str]]:
    if file.readline().rstrip("\n") != ",".join(COLUMNS):
        raise DataError(f"{path}: another first line", ",".join(COLUMNS))
    lines = (line for line in file if line.endswith("\n"))
    for number, row in enumerate(csv.reader(lines), 2):
        if len(row) != len(COLUMNS):
            raise DataError(f"{path}: line {number} has {len(row)} fields", f"{len(COLUMNS)}")
        yield row


def _columns(rows: Iterator[list[str]] | Iterator[tuple[object, ...]]) -> Requests:
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    kinds: Mapping[str, type] = {"client": np.str_, "status": np.str_}
    whole = {"id", "prompt_tokens", "output_tokens", "asked_tokens", "preempted"}
    arrays: dict[str, Any] = {}
    for name, values in zip(COLUMNS, columns, strict=True):
        kind = kinds.get(name, np.int64 if name in whole else np.float64)
        arrays[name] = np.array(values, dtype=kind) if values else np.empty(0, kind)
    order = np.argsort(arrays["id"], kind="stable")
    return Requests(**{name: values[order] for name, values in arrays.items()})
