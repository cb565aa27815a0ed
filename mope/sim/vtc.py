"""Arrivals as VTC's script draws them, number by number, so that its logged runs can be run again.

From `fair_bench/trace.py` of VTC-artifact, commit 15d4aa16ba: numpy's legacy generator with seed 42. Each client has
int(rate * duration) requests, also where some of them fall into its silence and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from mope.errors import ConfigError
from mope.sim.arrivals import Piece
from mope.sim.sequence import Arrival
from mope.sim.workload import ClientLoad

SEED = 42
Draw = np.random.RandomState


def arrivals(clients: tuple[ClientLoad, ...], duration_s: float, seed: int) -> Iterator[Arrival]:
    """Seed 0 is the published draw. Raises `ConfigError` on loads that the script does not know."""
    rng = Draw(SEED + seed)
    poisson = [client.cv == 1.0 for client in clients]
    if all(poisson) and len(clients) == 2:
        return iter(_poisson(clients, duration_s, rng))
    if any(client.cv != 0.0 for client in clients):
        raise ConfigError("draws = vtc", "even arrivals, or Poisson arrivals of two clients")
    if any(piece.first != piece.last for client in clients for piece in client.pieces):
        return iter(_increase(clients, duration_s, rng))
    return iter(_even(clients, duration_s, rng))


def _poisson(clients: tuple[ClientLoad, ...], duration_s: float, rng: Draw) -> Iterator[Arrival]:
    """One Poisson process; who sends a request is drawn by the rates."""
    rates = [max(piece.first for piece in client.pieces) for client in clients]
    count = int(sum(rates) * duration_s)
    second = rng.rand(count) > rates[0] / sum(rates)
    sizes = _lengths(clients[1], count, rng)
    at = np.cumsum(rng.gamma(1.0, 1.0 / sum(rates), count))
    for time, late, prompt, output in zip(at.tolist(), second.tolist(), *sizes, strict=True):
        client = clients[late]
        if _sends(client.pieces, time):
            scale = client.prompt.high / clients[1].prompt.high, client.output.high / clients[1].output.high
            yield _arrival(time, client, int(prompt * scale[0]), int(output * scale[1]))


def _even(clients: tuple[ClientLoad, ...], duration_s: float, rng: Draw) -> list[Arrival]:
    """Evenly spaced in each phase, from a random moment on."""
    phases = [_phases(client.pieces, duration_s) for client in clients]
    found = []
    for phase in zip(*phases, strict=True):
        for client, (begin_s, seconds, rate) in zip(clients, phase, strict=True):
            count = int(rate * seconds)
            sizes = _lengths(client, count, rng)
            time = begin_s + rng.rand() / rate
            for prompt, output in zip(*sizes, strict=True):
                time += 1 / rate
                if _sends(client.pieces, time):
                    found.append(_arrival(time, client, prompt, output))
    return sorted(found, key=lambda arrival: arrival.arrival_s)


def _increase(clients: tuple[ClientLoad, ...], duration_s: float, rng: Draw) -> list[Arrival]:
    """Evenly spaced from the start on; where the rate grows, each gap is that of the rate at its beginning."""
    found = []
    for client in clients:
        first, last = client.pieces[0].first, client.pieces[0].last
        count = int(0.5 * (first + last) * duration_s)
        time = 0.0
        for prompt, output in zip(*_lengths(client, count, rng), strict=True):
            time += 1 / (first + (last - first) * time / duration_s)
            found.append(_arrival(time, client, prompt, output))
    return sorted(found, key=lambda arrival: arrival.arrival_s)


def _lengths(client: ClientLoad, count: int, rng: Draw) -> tuple[list[int], list[int]]:
    prompts = rng.randint(client.prompt.low, client.prompt.high + 1, count)
    return prompts.tolist(), rng.randint(client.output.low, client.output.high + 1, count).tolist()


def _phases(pieces: tuple[Piece, ...], duration_s: float) -> list[tuple[float, float, float]]:
    """(begin, seconds, rate) of each stretch of time with one rate; silence belongs to the rate before it."""
    if pieces[0].seconds >= duration_s or len(pieces) == 2:
        return [(0.0, duration_s, pieces[0].first)]
    rates, begin, found = [piece.first for piece in pieces], 0.0, []
    for i, rate in enumerate(rates):
        rates[i] = rate or rates[i - 1]
    for rate, group in groupby(zip(rates, pieces, strict=True), key=lambda one: one[0]):
        seconds = sum(piece.seconds for _, piece in group)
        found.append((begin, seconds, rate))
        begin += seconds
    return found


def _sends(pieces: tuple[Piece, ...], time: float) -> bool:
    """Whether a client is not silent; its pieces repeat, the last of several phases goes on."""
    total = sum(piece.seconds for piece in pieces)
    left = time % total if len(pieces) == 2 else min(time, total)
    for piece in pieces:
        if left < piece.seconds:
            return piece.first > 0
        left -= piece.seconds
    return pieces[-1].first > 0


def _arrival(time: float, client: ClientLoad, prompt: int, output: int) -> Arrival:
    return Arrival(time, client.name, prompt, output, output)
