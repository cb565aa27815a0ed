"""The log of requests: one line for each that is over, written as it happens, readable at any time."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
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
TEXTS = ("client", "status")
WHOLE = ("id", "prompt_tokens", "output_tokens", "asked_tokens", "preempted")
DONE = "done"
READ = 20_000  # rows turned into arrays at a time
Floats = NDArray[np.float64]
Codes = NDArray[np.int32]
Row = tuple[Any, ...]


class Log:
    """Rows of requests, kept in memory or streamed to a file; `count` by status."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.rows: list[Row] = []
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
            return
        client = f'"{seq.client}"' if "," in seq.client else seq.client
        self._file.write(
            f"{seq.number},{client},{seq.arrival_s!r},{seq.admitted_s!r},{seq.first_s!r},{finish_s!r},"
            f"{seq.prompt},{seq.made},{seq.output},{seq.preempted},{status}\n"
        )

    def flush(self) -> int:
        """Bring all rows to the file; gives its length in bytes."""
        assert self._file is not None
        self._file.flush()
        return self._file.tell()

    def requests(self) -> Requests:
        """What is kept in memory, as columns."""
        return _columns(iter(self.rows), len(self.rows))


@dataclass(frozen=True)
class Requests:
    """A log as columns [n], in the order of `id`. Times in seconds; NaN where something never happened.

    `client` and `status` are places in `clients` and `statuses`. `output_tokens` were made; `asked_tokens` would
    have been, had the request been served to its end.
    """

    id: NDArray[np.int64]
    client: Codes
    arrival_s: Floats
    admitted_s: Floats
    first_s: Floats
    finish_s: Floats
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    asked_tokens: NDArray[np.int64]
    preempted: NDArray[np.int64]
    status: Codes
    clients: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.id)

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which were served to the end."""
        code = self.statuses.index(DONE) if DONE in self.statuses else -1
        return np.asarray(self.status == code)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Requests:
        """The chosen rows; clients and statuses keep their places."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in COLUMNS})

    def of(self, client: str) -> Requests:
        """The rows of one client."""
        return self.take(self.client == self.clients.index(client))


def read_log(path: str | Path) -> Requests:
    """The log in a file. A last line that was cut off is left out; raises `DataError` on any other fault."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            count = sum(1 for _ in file)
        with path.open(newline="", encoding="utf-8") as file:
            return _columns(_rows(file, path), count)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}", "a request log") from None


def _rows(file: TextIO, path: Path) -> Iterator[list[str]]:
    if file.readline().rstrip("\n") != ",".join(COLUMNS):
        raise DataError(f"{path}: another first line", ",".join(COLUMNS))
    lines = (line for line in file if line.endswith("\n"))
    for number, row in enumerate(csv.reader(lines), 2):
        if len(row) != len(COLUMNS):
            raise DataError(f"{path}: line {number} has {len(row)} fields", f"{len(COLUMNS)}")
        yield row


def _columns(rows: Iterator[Row] | Iterator[list[str]], most: int) -> Requests:
    """Rows, at most so many, as columns; a part at a time, so that memory holds little more than the result."""
    texts: dict[str, dict[str, int]] = {name: {} for name in TEXTS}
    kinds = {
        name: np.int32 if name in TEXTS else np.int64 if name in WHOLE else np.float64 for name in COLUMNS
    }
    arrays: dict[str, Any] = {name: np.empty(most, kinds[name]) for name in COLUMNS}
    count = 0
    while part := list(islice(rows, READ)):
        for name, values in zip(COLUMNS, zip(*part, strict=True), strict=True):
            cells: Iterable[Any] = _codes(values, texts[name]) if name in TEXTS else values
            arrays[name][count : count + len(part)] = np.array(cells, kinds[name])
        count += len(part)
    order = np.argsort(arrays["id"][:count], kind="stable")
    for name in COLUMNS:
        arrays[name] = arrays[name][:count][order]
    return Requests(**arrays, clients=tuple(texts["client"]), statuses=tuple(texts["status"]))


def _codes(values: Iterable[Any], known: dict[str, int]) -> list[int]:
    return [known.setdefault(value, len(known)) for value in values]
