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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from mope.errors import ConfigError, DataError
from mope.sim.cells import blocks_of, client_name, text, time_of, tokens
from mope.sim.lengths import drawn
from mope.sim.sequence import Arrival
from mope.sim.servegen import arrivals as servegen
from mope.sim.servegen import is_servegen
from mope.sim.tracefiles import open_trace


@dataclass(frozen=True)
class TraceConfig:
    """A trace file. `clients`: trace (as in the file), equal:N or zipf:N[:EXPONENT] drawn at random for each request.

    `speed` 2.0 lets requests come twice as fast; `limit` takes the first so many, from `begin_s` of the trace on.
    With a `rate` the file is a store of lengths: Poisson arrivals, so many a second, of rows drawn at random.
    """

    file: str
    clients: str = "trace"
    speed: float = 1.0
    limit: int | None = None
    begin_s: float = 0.0
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not (isfinite(self.rate) and self.rate > 0):
            raise ConfigError(f"trace: rate = {self.rate}", "a number above 0")
        if self.rate is not None and self.begin_s:
            raise ConfigError("trace: rate and begin_s", "one of them: drawn requests begin at 0")
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
        if self.rate is not None:
            if duration_s == inf and not limits:
                raise ConfigError(
                    f"{path}: a rate of {self.rate} without an end", "duration_s, requests or limit"
                )
            found = _named(drawn(path, self.rate * self.speed, seed, exact, duration_s), names)
        elif is_servegen(path):
            found = servegen(path, seed, exact, self.speed, self.begin_s, duration_s)
            found = _named(found, names)
        else:
            name_of = client_name if names is None else lambda _: next(names)
            found = _arrivals(path, exact, self, name_of, duration_s)
        return islice(found, min(limits)) if limits else found

    def prompts(
        self, column: str = "prompt", duration_s: float = inf, requests: int | None = None
    ) -> Iterator[str]:
        """The texts of the same requests in the same order. Raises `DataError` where the file has none."""
        if self.rate is not None or is_servegen(Path(self.file)):
            raise DataError(f"{self.file}: requests that are drawn", "a trace with a prompt in each row")
        limits = [limit for limit in (self.limit, requests) if limit is not None]
        found = _arrivals(Path(self.file), False, self, text, duration_s, column)
        return (one.client for one in (islice(found, min(limits)) if limits else found))


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


def _named(found: Iterator[Arrival], names: Iterator[str] | None) -> Iterator[Arrival]:
    return found if names is None else (one._replace(client=next(names)) for one in found)


def _arrivals(
    path: Path,
    exact: bool,
    trace: TraceConfig,
    name_of: Callable[[Any], str],
    duration_s: float,
    client_column: str | None = None,
) -> Iterator[Arrival]:
    found = open_trace(path, client=client_column)
    last, zero, number = -inf, trace.begin_s, 0
    for time, client, prompt, output, blocks in found.rows:
        number += 1
        try:
            at = time_of(time) * found.unit
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
            name = name_of(client)
            n_in, n_out = tokens("prompt", prompt), tokens("output", output)
            yield Arrival(
                since, name, n_in, n_out, n_out if exact else None, blocks_of(blocks) if blocks else ()
            )
        except ValueError as error:
            raise DataError(f"{path}: row {number}: {error}") from None
