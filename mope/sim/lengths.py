"""Requests drawn from a file of lengths: Poisson arrivals in place of times, rows drawn with the seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mope.errors import DataError
from mope.sim.cells import client_name, tokens
from mope.sim.sequence import Arrival
from mope.sim.tracefiles import open_trace

DRAWN = 1024


def drawn(path: Path, rate: float, seed: int, exact: bool, duration_s: float) -> Iterator[Arrival]:
    """`rate` requests a second whose prompt and output stand together in a row of the file, up to `duration_s`."""
    rows = list(_rows(path))
    gaps, chosen = (np.random.default_rng([seed, part]) for part in (11, 12))
    now = 0.0
    while True:
        for gap, place in zip(
            gaps.exponential(1 / rate, DRAWN).tolist(),
            chosen.integers(len(rows), size=DRAWN).tolist(),
            strict=True,
        ):
            now += gap
            if now >= duration_s:
                return
            client, prompt, output = rows[place]
            yield Arrival(now, client, prompt, output, output if exact else None)


def _rows(path: Path) -> Iterator[tuple[str, int, int]]:
    for number, (_, client, prompt, output, _) in enumerate(open_trace(path, timed=False).rows, 1):
        try:
            yield client_name(client), tokens("prompt", prompt), tokens("output", output)
        except ValueError as error:
            raise DataError(f"{path}: row {number}: {error}") from None
