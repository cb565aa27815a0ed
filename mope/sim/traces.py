"""Traces of requests: our own form and those that others publish, recognised by their columns.

| form | columns |
|---|---|
| own | arrival_s, client, prompt_tokens (or input_tokens), output_tokens |
| Azure | TIMESTAMP, ContextTokens, GeneratedTokens |
| BurstGPT | Timestamp, Model, Request tokens, Response tokens |
| Mooncake | JSONL: timestamp (ms), input_length, output_length, hash_ids |

CSV(.gz), JSONL(.gz) or parquet. ServeGen's tables of rates and lengths become requests in `mope.sim.servegen`.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import chain, islice
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from mope.data.parquet import parquet_columns, parquet_rows
from mope.errors import ConfigError, DataError
from mope.sim.sequence import Arrival
from mope.sim.servegen import arrivals as servegen
from mope.sim.servegen import is_servegen

MOST_TOKENS = 2**31
NAMES = {
    "time": ("arrival_s", "TIMESTAMP", "Timestamp", "timestamp"),
    "client": ("client", "user", "Session ID"),
    "prompt": ("prompt_tokens", "input_tokens", "ContextTokens", "Request tokens", "input_length"),
    "output": ("output_tokens", "GeneratedTokens", "Response tokens", "output_length"),
}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class TraceConfig:
    """A trace file. `clients`: trace (as in the file), equal:N or zipf:N[:EXPONENT] drawn at random for each request.

    `speed` 2.0 lets requests come twice as fast; `limit` takes the first so many, from `begin_s` of the trace on.
    """

    file: str
    clients: str = "trace"
    speed: float = 1.0
    limit: int | None = None
    begin_s: float = 0.0

    def __post_init__(self) -> None:
        if not (isfinite(self.speed) and self.speed > 0):
            raise ConfigError(f"trace: speed = {self.speed}", "a number above 0")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"trace: limit = {self.limit}", "a whole number from 1")
        if not (isfinite(self.begin_s) and self.begin_s >= 0):
            raise ConfigError(f"trace: begin_s = {self.begin_s}", "seconds from 0")
        shares(self.clients)

    @classmethod
    def of(cls, table: Mapping[str, Any], name: str, home: Path) -> TraceConfig:
        """From a `[trace]` table; the file lies beside the scenario unless its path says otherwise."""
        known = [item.name for item in fields(cls)]
        for key in table:
            if key not in known:
                raise ConfigError(f"{name}: trace key {key!r}", f"one of {', '.join(known)}")
        try:
            return cls(**{**table, "file": str(home / table["file"])})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{name}: trace: {error}", f"file and perhaps {', '.join(known[1:])}") from None

    def arrivals(
        self, seed: int, declared: str, duration_s: float = inf, requests: int | None = None
    ) -> Iterator[Arrival]:
        """Its requests; raises `DataError` with file and row on the first that is out of order or no request."""
        named = shares(self.clients)
        names = None if named is None else _assigned(*named, seed)
        limits = [limit for limit in (self.limit, requests) if limit is not None]
        path, exact = Path(self.file), declared == "exact"
        if is_servegen(path):
            found = servegen(path, seed, exact, self.speed, self.begin_s, duration_s)
            if names is not None:
                found = (arrival._replace(client=next(names)) for arrival in found)
        else:
            found = _arrivals(path, exact, self, names, duration_s)
        return islice(found, min(limits)) if limits else found


def shares(clients: str) -> tuple[str, np.ndarray] | None:
    """(kind, probability of each client) of `equal:N` or `zipf:N[:EXPONENT]`; None for `trace`."""
    if clients == "trace":
        return None
    kind, _, rest = clients.partition(":")
    count, _, exponent = rest.partition(":")
    try:
        n, power = int(count), float(exponent or 1.0) if kind == "zipf" else 0.0
        good = kind in ("equal", "zipf") and 1 <= n <= 10_000_000 and isfinite(power) and power >= 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"clients {clients!r}", "trace, equal:N or zipf:N[:EXPONENT]")
    weights = np.arange(1, n + 1, dtype=np.float64) ** -power
    return kind, weights / weights.sum()


def _assigned(kind: str, probabilities: np.ndarray, seed: int) -> Iterator[str]:
    rng = np.random.default_rng([seed, 7])
    edges = np.cumsum(probabilities)
    while True:
        for number in np.searchsorted(edges, rng.random(4096) * edges[-1], "right").tolist():
            yield f"{kind}-{number + 1}"


def _arrivals(
    path: Path, exact: bool, trace: TraceConfig, names: Iterator[str] | None, duration_s: float
) -> Iterator[Arrival]:
    begin, last = None, -inf
    for number, row in enumerate(read_rows(path), 1):
        where = f"{path}: row {number}"
        at = _time(row["time"], where)
        begin = at if begin is None else begin
        since = (at - begin if row["zero"] else at) - trace.begin_s
        if since < 0 <= since + trace.begin_s:
            continue
        since /= trace.speed
        if since < last or since < 0:
            raise DataError(
                f"{where}: arrival at {row['time']}", "times from 0 up that never fall; sort the file"
            )
        if since >= duration_s:
            return
        last = since
        prompt, output = (_tokens(row[key], where, key) for key in ("prompt", "output"))
        client = next(names) if names is not None else str(row["client"] or "all")
        if "\n" in client or "\r" in client or '"' in client:
            raise DataError(f"{where}: client {client!r}", "a name without line breaks and quotes")
        yield Arrival(since, client, prompt, output, output if exact else None, row["blocks"])


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows as time, client, prompt, output, blocks and `zero`: whether times count from the first row's."""
    if not path.is_file():
        raise DataError(f"{path}: no such file", "a trace")
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        rows: Iterator[Row] = _parquet(path)
    elif name.endswith((".jsonl", ".json")):
        rows = _json_lines(path)
    else:
        rows = _csv(path)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: no rows", "at least one request")
    columns = {key: _column(first, options, key, path) for key, options in NAMES.items()}
    own = columns["time"] == "arrival_s"
    scale = 1e-3 if "input_length" in first else 1.0
    for row in chain([first], rows):
        found = {key: None if column is None else row.get(column) for key, column in columns.items()}
        if scale != 1.0 and isinstance(found["time"], int | float):
            found["time"] *= scale
        hashes = row.get("hash_ids")
        found["blocks"] = _blocks(hashes, path) if hashes else ()
        found["zero"] = not own
        yield found


def _column(row: Row, options: tuple[str, ...], key: str, path: Path) -> str | None:
    found = next((name for name in options if name in row), None)
    if found is None and key != "client":
        raise DataError(
            f"{path}: columns {', '.join(map(str, row))}", f"one of {', '.join(options)} for the {key}"
        )
    return found


def _csv(path: Path) -> Iterator[Row]:
    yield from csv.DictReader(_lines(path))


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: {error}", "one JSON object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number}: {type(row).__name__}", "one JSON object a line")
        yield row


def _parquet(path: Path) -> Iterator[Row]:
    parquet_columns(path)
    yield from parquet_rows(path, ())


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file, which may be gzipped; `DataError` where it breaks off or is no text."""
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield from file
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: {error}", "a whole file of text in UTF-8") from None


def _time(value: Any, where: str) -> float:
    """Seconds from a number or a date."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = _date(value, where)
    if not isfinite(seconds):
        raise DataError(f"{where}: arrival {value!r}", "a finite time")
    return seconds


def _date(value: Any, where: str) -> float:
    try:
        when = value if isinstance(value, datetime) else datetime.fromisoformat(_six_digits(str(value)))
    except ValueError:
        raise DataError(f"{where}: arrival {value!r}", "seconds, or a date and time") from None
    return when.timestamp() if when.tzinfo else (when - datetime(1970, 1, 1)).total_seconds()


def _six_digits(text: str) -> str:
    """A date with at most microseconds: Azure's have seven digits after the point."""
    head, dot, tail = text.strip().partition(".")
    return f"{head}.{tail[:6].ljust(6, '0')}" if dot and tail.isdigit() else text.strip()


def _tokens(value: Any, where: str, key: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 1 <= number <= MOST_TOKENS or number != int(number):
        raise DataError(f"{where}: {key} tokens {value!r}", f"a whole number from 1 to {MOST_TOKENS}")
    return int(number)


def _blocks(hashes: Any, path: Path) -> tuple[int, ...]:
    if not isinstance(hashes, list) or not all(isinstance(one, int) for one in hashes):
        raise DataError(f"{path}: hash_ids {hashes!r}", "a list of whole numbers")
    return tuple(hashes)
