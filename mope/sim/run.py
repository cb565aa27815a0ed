"""One run: a scenario, a policy, a predictor, a seed; in memory, or in a folder that outlives a kill.

result = simulate(load_scenario("vtc/overload"), "equinox", "noise:80", seed=0)
result.summary["ttft_s"], result.log.first_s
"""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mope
from mope.equinox import AdmissionConfig, FairScheduler, Priors
from mope.errors import ConfigError
from mope.files import write_text
from mope.mapper.profile import Profile
from mope.sim import checkpoint
from mope.sim.costs import Costs
from mope.sim.engine import Simulation
from mope.sim.guesses import used_file
from mope.sim.log import Log, Requests, read_log
from mope.sim.loops import make_loop
from mope.sim.loops.mixed import Mixed
from mope.sim.oracle import Oracle
from mope.sim.scenario import Scenario
from mope.sim.summary import summarise
from mope.sim.utilisation import utilisation

BETWEEN_S = 20.0  # seconds of work between two checkpoints
EVENTS = 20_000  # between two looks at the clock
Watch = Callable[[int, float], None]  # (requests so far, simulated seconds)


@dataclass(frozen=True)
class RunConfig:
    """What a run is made of, beside its scenario."""

    policy: str = "equinox"
    predictor: str = "noise:80"
    seed: int = 0
    stepwise: bool = False
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    priors: Priors = field(default_factory=Priors)

    @property
    def predictor_name(self) -> str:
        """The predictor without the folder of its file."""
        kind, colon, size = self.predictor.partition(":")
        return f"{kind}{colon}{Path(size).name}"

    @property
    def name(self) -> str:
        """As a folder's name."""
        word = f"{self.policy}~{self.predictor_name}~s{self.seed}"
        return "".join(c if c.isalnum() or c in "~-_.=+" else "_" for c in word)


@dataclass(frozen=True)
class Result:
    """A run that is over. `cpu_s` is process time; `mae` the mean absolute error of the forecasts, in tokens."""

    config: RunConfig
    log: Requests
    summary: dict[str, Any]


def build(scenario: Scenario, config: RunConfig, log: Log) -> Simulation:
    """A simulation ready to start. Raises `BadInput` on an unknown policy, predictor or hardware."""
    if config.seed < 0:
        raise ConfigError(f"seed {config.seed}", "a whole number from 0")
    profile = Profile.load(scenario.hardware)
    scheduler = FairScheduler(
        config.policy, admission=config.admission, priors=config.priors, weights=scenario.weights
    )
    truth = scheduler.policy.oracle
    oracle = Oracle(config.predictor, profile, config.seed, truth)
    sim = Simulation(scenario.arrivals(config.seed), scheduler, oracle.forecast, log, util=oracle.util)
    sim.loop = make_loop(
        scenario.server, sim, Costs(profile, scenario.server.overhead_s), stepwise=config.stepwise
    )
    sim.start()
    return sim


def simulate(
    scenario: Scenario, policy: str = "equinox", predictor: str = "noise:80", seed: int = 0
) -> Result:
    """A run in memory."""
    return simulate_as(scenario, RunConfig(policy, predictor, seed))


def simulate_as(scenario: Scenario, config: RunConfig) -> Result:
    """A run in memory, of everything that can be set."""
    log = Log()
    began = time.process_time()
    sim = build(scenario, config, log)
    with few_collections():
        sim.run()
    cpu_s = time.process_time() - began
    return Result(config, found := log.requests(), _summary(sim, scenario, found, cpu_s))


def simulate_in(
    folder: Path, scenario: Scenario, config: RunConfig, watch: Watch | None = None
) -> dict[str, Any]:
    """A run in `folder`: log.csv, summary.json. Done already: read; killed before: gone on with."""
    identity = fingerprint(scenario, config)
    done = folder / "summary.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if found.get("run") == identity:
            return found
    folder.mkdir(parents=True, exist_ok=True)
    state = checkpoint.load(folder / "checkpoint", identity)
    path = folder / "log.csv"
    with path.open("w+" if state is None else "r+", encoding="utf-8", newline="") as file:
        if state is not None:
            file.seek(state["log_bytes"])
            file.truncate()
        log = Log(file)
        if state is None:
            sim = build(scenario, config, log)
        else:
            sim = state["sim"]
            log.count = state["count"]
            sim.attach(scenario.arrivals(config.seed), log)
        cpu_s = _run_on(sim, folder / "checkpoint", identity, watch)
    summary = {"run": identity, **_summary(sim, scenario, read_log(path), cpu_s)}
    write_text(done, json.dumps(summary, indent=1) + "\n")
    (folder / "checkpoint").unlink(missing_ok=True)
    return summary


@contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for reference cycles rarely: a run makes none, and looking takes a twentieth of its time."""
    usual = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _some(sim: Simulation) -> bool:
    with few_collections():
        return sim.run(EVENTS)


def _run_on(sim: Simulation, path: Path, identity: str, watch: Watch | None) -> float:
    began, saved = time.process_time(), time.monotonic()
    while _some(sim):
        if watch is not None:
            watch(sim.count, sim.events.now)
        if time.monotonic() - saved > BETWEEN_S:
            checkpoint.save(sim, path, identity)
            saved = time.monotonic()
    sim.log.flush()
    return time.process_time() - began


def _summary(sim: Simulation, scenario: Scenario, log: Requests, cpu_s: float) -> dict[str, Any]:
    last = float(log.arrival_s.max()) if len(log) else 0.0
    end = scenario.duration_s if scenario.duration_s < float("inf") else last
    oracle = sim.foresee.__self__  # type: ignore[attr-defined]
    simulated, busy_s = sim.events.now, getattr(sim.loop, "busy_s", 0.0)
    steps = sim.loop.batch.step if isinstance(sim.loop, Mixed) else None
    return {
        **summarise(log, end, scenario.weights),
        "mae_tokens": oracle.mae,
        **utilisation(log.take(log.done), Profile.load(scenario.hardware), simulated, busy_s, steps),
        "cpu_s": cpu_s,
        "simulated_s": simulated,
    }


def fingerprint(scenario: Scenario, config: RunConfig) -> str:
    """A hash of everything a run depends on."""
    given = {**asdict(scenario), "hardware": Profile.load(scenario.hardware).to_json()}
    file = used_file(config.predictor)
    said = file.read_bytes() if file is not None and file.is_file() else b""
    parts = {
        "scenario": given,
        "config": asdict(config),
        "said": hashlib.sha256(said).hexdigest(),
        "version": mope.__version__,
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
