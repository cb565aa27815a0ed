"""Queueing theory: the engine with one slot is a single server; its waits are Lindley's, and those are theory's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from mope.mapper.profile import Profile
from mope.mapper.steps import Direct
from mope.sim.arrivals import steady, times
from mope.sim.engine import Simulation
from mope.sim.metrics import times as measured

Run = Callable[..., Simulation]
STEP = 0.001
MEAN = 200  # tokens of a service: geometric lengths of this mean are within 0.5 % of exponential in variance


def lindley(arrivals: np.ndarray, services: np.ndarray) -> np.ndarray:
    """Waits of a queue with one server, first come first served: W' = max(W + S - A, 0), in closed form."""
    walk = np.concatenate([[0.0], np.cumsum(services[:-1] - np.diff(arrivals))])
    return np.asarray(walk - np.minimum.accumulate(walk))


def lengths(kind: str, count: int, seed: int) -> np.ndarray:
    if kind == "M/D/1":
        return np.full(count, MEAN)
    return np.random.default_rng(seed).geometric(1.0 / MEAN, count)


def arrivals(load: float, count: int, seed: int) -> np.ndarray:
    rate = load / (MEAN * STEP)
    return np.array(list(islice(times(steady(rate), np.random.default_rng(seed), 1.0), count)))


@pytest.mark.parametrize("kind", ["M/M/1", "M/D/1"])
@pytest.mark.parametrize("loop", ["continuous", "chunked", "slora"])
def test_waits_of_one_slot_are_lindley_s(
    run_world: Run, round_profile: Profile, kind: str, loop: str
) -> None:
    law = Direct(step=STEP, sequence=0.0, context=0.0, prefill_step=STEP, prefill_token=0.0)
    when, tokens = arrivals(0.7, 3000, 5), lengths(kind, 3000, 6)
    rows = [(at, "a", 1, n) for at, n in zip(when.tolist(), tokens.tolist(), strict=True)]
    sim = run_world(rows, profile=replace(round_profile, law=law), loop=loop, max_seqs=1)
    log = sim.log.requests()
    assert np.allclose(log.admitted_s - log.arrival_s, lindley(when, tokens * STEP), atol=1e-8)


@pytest.mark.parametrize(("kind", "load"), [("M/M/1", 0.3), ("M/D/1", 0.3), ("M/M/1", 0.5), ("M/D/1", 0.6)])
def test_mean_waits_are_pollaczek_s_and_khinchine_s_within_one_percent(kind: str, load: float) -> None:
    count = 2_500_000
    services = lengths(kind, count, 1) * STEP
    waits = lindley(arrivals(load, count, 2), services)
    second = services.var() / services.mean() ** 2 + 1
    assert second == pytest.approx(2 - 1 / MEAN if kind == "M/M/1" else 1, rel=0.01)
    exact = (2 - 1 / MEAN) if kind == "M/M/1" else 1.0
    theory = load * MEAN * STEP * exact / (2 * (1 - load))
    assert waits.mean() == pytest.approx(theory, rel=0.01)


@pytest.mark.parametrize("policy", ["fcfs", "vtc", "equinox"])
def test_little_s_law_holds_to_rounding(run_world: Run, round_profile: Profile, policy: str) -> None:
    law = Direct(step=0.02, sequence=0.001, context=1e-5, prefill_step=0.01, prefill_token=2e-4)
    when = arrivals(0.9, 1500, 8) * 2
    rng = np.random.default_rng(9)
    rows = [
        (at, f"c{rng.integers(5)}", int(rng.integers(1, 200)), int(rng.integers(1, 200)))
        for at in when.tolist()
    ]
    sim = run_world(rows, policy, profile=replace(round_profile, law=law), loop="chunked", pool_tokens=2000)
    log = sim.log.requests()
    # L: the number in the system, as a step function of time, averaged
    moments = np.concatenate([log.arrival_s, log.finish_s])
    change = np.concatenate([np.ones(len(log)), -np.ones(len(log))])
    order = np.argsort(moments, kind="stable")
    number = np.cumsum(change[order])[:-1]
    span = moments.max() - moments.min()
    in_system = float((number * np.diff(moments[order])).sum()) / span
    rate, stay = len(log) / span, float(measured(log)["latency_s"].mean())
    assert in_system == pytest.approx(rate * stay, rel=1e-9)
    assert number.max() > 20
