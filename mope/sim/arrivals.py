"""When requests come: a rate that changes piecewise linearly over time, and how regular the arrivals are.

Any such process is a unit process (one arrival a second on average) seen through the clock of the rate: its n-th
arrival comes when the integral of the rate has reached the n-th arrival of the unit process. So constant, Poisson
and gamma arrivals can follow any of constant, on/off, ramp and diurnal rates.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, pairwise
from math import inf, pi, sin, sqrt
from typing import NamedTuple

import numpy as np

DRAWN = 1024
DAY_PARTS = 48
END = inf


class Piece(NamedTuple):
    """`seconds` during which the rate goes from `first` to `last` requests a second."""

    seconds: float
    first: float
    last: float

    @property
    def total(self) -> float:
        """Requests in all."""
        return self.seconds * (self.first + self.last) / 2

    def when(self, count: float) -> float:
        """Seconds from the start until `count` requests have come."""
        slope = (self.last - self.first) / self.seconds if self.seconds < END else 0.0
        if slope == 0.0:
            return count / self.first
        root = sqrt(max(self.first * self.first + 2 * slope * count, 0.0))
        return 2 * count / (self.first + root)


def steady(rate: float) -> list[Piece]:
    """The same rate for ever."""
    return [Piece(END, rate, rate)]


def on_off(rate: float, on_s: float, off_s: float) -> list[Piece]:
    """The rate for `on_s` seconds, nothing for `off_s`, and again."""
    return [Piece(on_s, rate, rate), Piece(off_s, 0.0, 0.0)]


def ramp(first: float, last: float, seconds: float) -> list[Piece]:
    """From one rate to another."""
    return [Piece(seconds, first, last)]


def diurnal(mean: float, swing: float, period_s: float) -> list[Piece]:
    """mean (1 + swing sin(2 pi t / period)), as straight pieces."""
    points = [mean * (1 + swing * sin(2 * pi * i / DAY_PARTS)) for i in range(DAY_PARTS + 1)]
    width = period_s / DAY_PARTS
    return [Piece(width, one, other) for one, other in pairwise(points)]


def unit(rng: np.random.Generator, cv: float) -> Iterator[float]:
    """Arrival times of a process of rate 1: `cv` 0: even with a random phase; else gamma gaps, 1: Poisson."""
    at = 0.0
    if cv == 0.0:
        at = float(rng.random())
        while True:
            yield at
            at += 1.0
    shape = 1.0 / (cv * cv)
    while True:
        for gap in rng.gamma(shape, 1.0 / shape, DRAWN).tolist():
            at += gap
            yield at


def times(pieces: list[Piece], rng: np.random.Generator, cv: float, start_s: float = 0.0) -> Iterator[float]:
    """Arrival times, without end where the pieces (which repeat) have any requests in them."""
    if not any(piece.total > 0 for piece in pieces):
        return
    source = unit(rng, cv)
    wanted = next(source)
    begin, passed = start_s, 0.0
    for piece in cycle(pieces):
        end = passed + piece.total
        while wanted < end:
            yield begin + piece.when(wanted - passed)
            wanted = next(source)
        begin, passed = begin + piece.seconds, end
