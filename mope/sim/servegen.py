"""ServeGen's tables (Alibaba): rates of clients in windows and distributions of their lengths, drawn into requests.

NAME_windows.parquet: client, start_s, rate_rps, cv. NAME_length_pdfs.parquet beside it: client, start_s, field
(input_tokens, output_tokens), value, prob. Clients without distributions are left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from heapq import merge
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mope.data.parquet import parquet_rows
from mope.errors import DataError
from mope.sim.arrivals import unit
from mope.sim.sequence import Arrival

WINDOWS, PDFS = "_windows.parquet", "_length_pdfs.parquet"
FIELDS = ("input_tokens", "output_tokens")


class Window(NamedTuple):
    """`rate` requests a second with gaps of variation `cv`, from `start_s` on."""

    start_s: float
    rate: float
    cv: float


class Pdf(NamedTuple):
    """Lengths and the cumulated probability of each."""

    values: np.ndarray
    edges: np.ndarray

    def draw(self, rng: np.random.Generator) -> int:
        """One length, at least one token."""
        place = np.searchsorted(self.edges, rng.random() * self.edges[-1], "right")
        return max(1, round(float(self.values[min(place, len(self.values) - 1)])))


Pdfs = dict[str, tuple[list[float], list[Pdf]]]  # by field: starts, and the distribution from each on


def is_servegen(path: Path) -> bool:
    """Whether a path names ServeGen's table of windows."""
    return path.name.endswith(WINDOWS)


def arrivals(
    path: Path, seed: int, exact: bool, speed: float, begin_s: float, duration_s: float
) -> Iterator[Arrival]:
    """Requests from `begin_s` of the trace on; `speed` times as many. Raises `DataError` where a table is missing."""
    beside = path.with_name(path.name.removesuffix(WINDOWS) + PDFS)
    for one in (path, beside):
        if not one.is_file():
            raise DataError(f"{one}: no such file", f"NAME{WINDOWS} and NAME{PDFS} beside it")
    pdfs, windows = _pdfs(beside), _windows(path)
    streams = [
        _client(client, found, pdfs[client], [seed, client], exact, speed, begin_s, begin_s + duration_s)
        for client, found in sorted(windows.items())
        if set(FIELDS) <= set(pdfs.get(client, {}))
    ]
    return merge(*streams)


def _windows(path: Path) -> dict[int, list[Window]]:
    found: dict[int, list[Window]] = defaultdict(list)
    for row in parquet_rows(path, ("client", "start_s", "rate_rps", "cv")):
        numbers = [float(row[key]) for key in ("start_s", "rate_rps", "cv")]  # type: ignore[arg-type]
        if not all(0 <= number < inf for number in numbers):
            raise DataError(f"{path}: {dict(row)}", "times, rates and variations from 0 up")
        found[int(row["client"])].append(Window(*numbers))  # type: ignore[call-overload]
    return {client: sorted(windows) for client, windows in found.items()}


def _pdfs(path: Path) -> dict[int, Pdfs]:
    rows: dict[tuple[int, str, float], list[tuple[float, float]]] = defaultdict(list)
    for row in parquet_rows(path, ("client", "start_s", "field", "value", "prob")):
        key = int(row["client"]), str(row["field"]), float(row["start_s"])  # type: ignore[call-overload, arg-type]
        rows[key].append((float(row["value"]), float(row["prob"])))  # type: ignore[arg-type]
    found: dict[int, Pdfs] = {}
    for (client, field, start), points in sorted(rows.items()):
        values, probabilities = np.array(sorted(points)).T
        starts, each = found.setdefault(client, {}).setdefault(field, ([], []))
        starts.append(start)
        each.append(Pdf(values, np.cumsum(probabilities)))
    return found


def _client(
    client: int,
    windows: list[Window],
    pdfs: Pdfs,
    seed: list[int],
    exact: bool,
    speed: float,
    begin_s: float,
    end_s: float,
) -> Iterator[Arrival]:
    """Requests of one client; the last window lasts as long as the one before."""
    rng = np.random.default_rng(seed)
    ends = [*(window.start_s for window in windows[1:]), inf]
    if len(windows) > 1:
        ends[-1] = 2 * windows[-1].start_s - windows[-2].start_s
    for window, stop in zip(windows, ends, strict=True):
        if window.start_s >= end_s:
            return
        if not window.rate or stop <= begin_s:
            continue
        for at in unit(rng, window.cv or 1.0):
            time = window.start_s + at / (window.rate * speed)
            if time >= min(stop, end_s):
                break
            prompt, output = (_draw(pdfs[field], time, rng) for field in FIELDS)
            if time >= begin_s:
                yield Arrival(time - begin_s, f"client-{client}", prompt, output, output if exact else None)


def _draw(pdfs: tuple[list[float], list[Pdf]], time: float, rng: np.random.Generator) -> int:
    starts, found = pdfs
    return found[max(bisect_right(starts, time) - 1, 0)].draw(rng)
