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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from mope.errors import ConfigError, DataError
from mope.sim.sequence import Arrival
from mope.sim.servegen import arrivals as servegen
from mope.sim.servegen import is_servegen
from mope.sim.tracefiles import open_trace

MOST_TOKENS = 2**31


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
    found = open_trace(path)
    last, zero, number = -inf, trace.begin_s, 0
    for time, client, prompt, output, blocks in found.rows:
        number += 1
        try:
            at = _time(time) * found.unit
            if number == 1 and found.relative:
                zero += at
            since = (at - zero) / trace.speed
            if at < zero - trace.begin_s or since < last:
                raise ValueError(
                    f"arrival at {time}, expected: times from 0 up that never fall; sort the file"
                )
            last = since
            if since >= duration_s:
                return
            if since < 0:
                continue
            name = next(names) if names is not None else _client(client)
            n_in, n_out = _tokens("prompt", prompt), _tokens("output", output)
            yield Arrival(
                since, name, n_in, n_out, n_out if exact else None, _blocks(blocks) if blocks else ()
            )
        except ValueError as error:
            raise DataError(f"{path}: row {number}: {error}") from None


def _client(name: Any) -> str:
    client = str(name or "all")
    if "\n" in client or "\r" in client or '"' in client:
        raise ValueError(f"client {client!r}, expected: a name without line breaks and quotes")
    return client


def _time(value: Any) -> float:
    """Seconds from a number or a date."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = _date(value)
    if not isfinite(seconds):
        raise ValueError(f"arrival {value!r}, expected: a finite time")
    return seconds


def _date(value: Any) -> float:
    try:
        when = value if isinstance(value, datetime) else datetime.fromisoformat(_six_digits(str(value)))
    except ValueError:
        raise ValueError(f"arrival {value!r}, expected: seconds, or a date and time") from None
    return when.timestamp() if when.tzinfo else (when - datetime(1970, 1, 1)).total_seconds()


def _six_digits(text: str) -> str:
    """A date with at most microseconds: Azure's have seven digits after the point."""
    head, dot, tail = text.strip().partition(".")
    return f"{head}.{tail[:6].ljust(6, '0')}" if dot and tail.isdigit() else text.strip()


def _tokens(key: str, value: Any) -> int:
    try:
        number = int(value)
        good = 1 <= number <= MOST_TOKENS and number == float(value)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{key} tokens {value!r}, expected: a whole number from 1 to {MOST_TOKENS}")
    return number


def _blocks(hashes: Any) -> tuple[int, ...]:
    if not isinstance(hashes, list) or not all(isinstance(one, int) for one in hashes):
        raise ValueError(f"hash_ids {hashes!r}, expected: a list of whole numbers")
    return tuple(hashes)
