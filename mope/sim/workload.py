"""Workloads: streams of requests in the order of their arrival, from clients described in a scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from math import isfinite
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mope.errors import ConfigError
from mope.sim.arrivals import Piece, diurnal, on_off, ramp, steady, times
from mope.sim.sequence import Arrival

DRAWN = 1024
LONGEST = 1_000_000


@dataclass(frozen=True)
class Lengths:
    """Numbers of tokens: `fixed`, `uniform` from `low` to `high`, or `lognormal` with median and sigma, clipped."""

    kind: str = "fixed"
    low: int = 256
    high: int = 256
    median: float = 256.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("fixed", "uniform", "lognormal"):
            raise ConfigError(f"lengths of kind {self.kind!r}", "fixed, uniform or lognormal")
        if not 1 <= self.low <= self.high <= LONGEST:
            raise ConfigError(
                f"lengths from {self.low} to {self.high}", f"1 <= low <= high <= {LONGEST} tokens"
            )
        if not (isfinite(self.median) and self.median > 0 and isfinite(self.sigma) and self.sigma >= 0):
            raise ConfigError(f"lengths: median {self.median}, sigma {self.sigma}", "finite, median above 0")

    @classmethod
    def of(cls, value: object) -> Lengths:
        """From a number, or a table with one key: `{uniform = [16, 511]}`, `{lognormal = [200, 0.9, 1, 2000]}`."""
        if isinstance(value, int) and not isinstance(value, bool):
            return cls("fixed", value, value)
        if isinstance(value, Mapping) and len(value) == 1:
            ((kind, numbers),) = value.items()
            numbers = numbers if isinstance(numbers, list) else []
            if all(isinstance(n, int | float) and isfinite(n) for n in numbers):
                if kind == "uniform" and len(numbers) == 2:
                    return cls("uniform", int(numbers[0]), int(numbers[1]))
                if kind == "lognormal" and len(numbers) == 4:
                    median, sigma, low, high = numbers
                    return cls("lognormal", int(low), int(high), float(median), float(sigma))
        raise ConfigError(
            f"length {value!r}",
            "a number, {uniform = [low, high]} or {lognormal = [median, sigma, low, high]}",
        )

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """`count` numbers of tokens."""
        if self.kind == "fixed":
            return np.full(count, self.low, np.int64)
        if self.kind == "uniform":
            return rng.integers(self.low, self.high + 1, count)
        drawn = np.exp(rng.normal(np.log(self.median), self.sigma, count))
        return np.clip(np.rint(drawn), self.low, self.high).astype(np.int64)


@dataclass(frozen=True)
class ClientLoad:
    """One client of a scenario. `cv` is the variation of gaps: 0 evenly spaced, 1 Poisson. Pieces repeat."""

    name: str
    pieces: tuple[Piece, ...]
    cv: float = 1.0
    prompt: Lengths = field(default_factory=Lengths)
    output: Lengths = field(default_factory=Lengths)
    weight: float = 1.0

    def stream(self, seed: int, declared: str) -> Iterator[Arrival]:
        """Its requests, without end; the same for the same seed whoever the other clients are."""
        rng = np.random.default_rng([seed, crc32(self.name.encode())])
        when = times(list(self.pieces), rng, self.cv)
        lengths = np.random.default_rng([seed, crc32(self.name.encode()), 1])
        exact = declared == "exact"
        while True:
            prompts = self.prompt.draw(lengths, DRAWN).tolist()
            outputs = self.output.draw(lengths, DRAWN).tolist()
            for prompt, output in zip(prompts, outputs, strict=True):
                at = next(when, None)
                if at is None:
                    return
                yield Arrival(at, self.name, prompt, output, output if exact else None)


PIECES: dict[str, tuple[tuple[str, ...], Callable[..., list[Piece]]]] = {
    "steady": (("rate",), steady),
    "on_off": (("rate", "on_s", "off_s"), on_off),
    "ramp": (("first", "last", "seconds"), ramp),
    "diurnal": (("mean", "swing", "period_s"), diurnal),
}


def pieces_of(table: Mapping[str, Any], name: str) -> list[Piece]:
    """The rate of a client: `rate = 2.0`, or `{on_off = [rate, on_s, off_s]}` and the like, or a list of pieces."""
    if len(table) == 1:
        ((kind, given),) = table.items()
        numbers = given if isinstance(given, list) else [given]
        names, build = PIECES.get(kind, ((), steady))
        good = all(isinstance(n, int | float) and isfinite(n) and n >= 0 for n in numbers)
        if names and len(numbers) == len(names) and good:
            return _checked(build(*map(float, numbers)), name)
    known = ", ".join(f"{kind} = [{', '.join(names)}]" for kind, (names, _) in PIECES.items())
    raise ConfigError(f"client {name!r}: rate {dict(table)}", f"one of {known}, numbers from 0")


def _checked(pieces: list[Piece], name: str) -> list[Piece]:
    for piece in pieces:
        if not piece.seconds > 0 or piece.first < 0 or piece.last < 0:
            raise ConfigError(f"client {name!r}: {piece}", "times above 0, rates from 0")
    return pieces


def mixed(
    clients: tuple[ClientLoad, ...], seed: int, declared: str, duration_s: float, requests: int | None
) -> Iterator[Arrival]:
    """The requests of all clients in the order of arrival, up to `duration_s` or so many `requests`."""
    streams = [_until(client.stream(seed, declared), duration_s) for client in clients]
    found = streams[0] if len(streams) == 1 else merge(*streams)
    return found if requests is None else islice(found, requests)


def _until(stream: Iterator[Arrival], end_s: float) -> Iterator[Arrival]:
    for arrival in stream:
        if arrival.arrival_s >= end_s:
            return
        yield arrival
