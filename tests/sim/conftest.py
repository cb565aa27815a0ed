"""Tiny worlds: a server whose steps take round times, requests by hand, and a run of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mope.equinox import FairScheduler
from mope.mapper.profile import Profile
from mope.mapper.steps import Direct
from mope.sim.costs import Costs
from mope.sim.engine import Simulation
from mope.sim.log import Log
from mope.sim.loops import make_loop
from mope.sim.oracle import Oracle
from mope.sim.sequence import Arrival
from mope.sim.server import ServerConfig

Row = tuple[float, str, int, int]
Run = Callable[..., Simulation]
ROUND = Direct(step=1.0, sequence=0.0, context=0.0, prefill_step=1.0, prefill_token=0.0)


@pytest.fixture(scope="session")
def round_profile() -> Profile:
    """Every step takes one second, whatever is in it."""
    return replace(Profile.load("llama-2-7b@a10g"), law=ROUND)


@pytest.fixture(scope="session")
def run_world(round_profile: Profile) -> Run:
    """Runs (arrival_s, client, prompt, output) rows and gives the simulation, over unless `events` says when."""

    def run(
        rows: Sequence[Row],
        policy: str = "fcfs",
        predictor: str = "exact",
        *,
        profile: Profile = round_profile,
        stepwise: bool = False,
        start: bool = True,
        seed: int = 0,
        **server: Any,
    ) -> Simulation:
        config = ServerConfig(**server)
        scheduler = FairScheduler(policy)
        oracle = Oracle(predictor, profile, seed, scheduler.policy.oracle)
        arrivals = (Arrival(at, client, prompt, output, output) for at, client, prompt, output in rows)
        sim = Simulation(arrivals, scheduler, oracle.forecast, Log(), util=oracle.util)
        sim.loop = make_loop(config, sim, Costs(profile, config.overhead_s), stepwise)
        sim.start()
        if start:
            sim.run()
        return sim

    return run
