"""Runs: the same for the same seed, on disk as in memory, after a kill as without one; logs always readable."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mope.errors import BadInput, ConfigError, DataError
from mope.mapper.profile import Profile
from mope.sim import checkpoint, run
from mope.sim.engine import Simulation
from mope.sim.log import COLUMNS, Requests, read_log
from mope.sim.oracle import Oracle
from mope.sim.run import RunConfig, fingerprint, simulate, simulate_in
from mope.sim.scenario import Scenario, parse_scenario
from mope.sim.sequence import Arrival, Sequence

WORLD = {
    "duration_s": 40,
    "hardware": "llama-2-7b@a10g",
    "server": {"pool_tokens": 4000},
    "clients": [
        {"name": "a, with comma", "rate": 1.0, "output_tokens": {"uniform": [1, 300]}},
        {"name": "b", "rate": 2.0, "output_tokens": {"uniform": [1, 100]}},
    ],
}


def table(log: Requests) -> list[tuple[Any, ...]]:
    """Rows with names."""
    columns = {name: getattr(log, name).tolist() for name in COLUMNS}
    columns["client"] = [log.clients[code] for code in columns["client"]]
    columns["status"] = [log.statuses[code] for code in columns["status"]]
    return [tuple(map(repr, row)) for row in zip(*columns.values(), strict=True)]


@pytest.fixture
def scenario() -> Scenario:
    return parse_scenario(WORLD, "world")


def test_the_same_seed_gives_the_same_and_another_another(scenario: Scenario) -> None:
    one, again, other = (simulate(scenario, "equinox", "noise:80", seed) for seed in (0, 0, 1))
    assert table(one.log) == table(again.log)
    assert one.log.arrival_s.tolist() != other.log.arrival_s.tolist()
    assert one.summary["mae_tokens"] == again.summary["mae_tokens"] > 0


def test_policies_see_the_same_arrivals_and_errors(scenario: Scenario) -> None:
    one, other = simulate(scenario, "fcfs"), simulate(scenario, "vtc")
    assert one.log.arrival_s.tolist() == other.log.arrival_s.tolist()
    assert one.summary["mae_tokens"] == other.summary["mae_tokens"]


def test_a_folder_holds_what_memory_would(scenario: Scenario, tmp_path: Path) -> None:
    summary = simulate_in(tmp_path, scenario, RunConfig("vtc", "exact", 3))
    expected = simulate(scenario, "vtc", "exact", 3)
    assert table(read_log(tmp_path / "log.csv")) == table(expected.log)
    timing = {"cpu_s": 0, "run": ""}
    assert {**summary, **timing} == {**json.loads(json.dumps(expected.summary)), **timing}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "summary.json"]


def test_what_is_done_is_not_done_again_unless_it_is_another_run(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = simulate_in(tmp_path, scenario, RunConfig("fcfs"))
    monkeypatch.setattr(run, "build", None)
    assert simulate_in(tmp_path, scenario, RunConfig("fcfs")) == first
    monkeypatch.undo()
    longer = replace(scenario, duration_s=50.0)
    assert fingerprint(longer, RunConfig("fcfs")) != first["run"]
    assert simulate_in(tmp_path, longer, RunConfig("fcfs"))["requests"] > first["requests"]


class Stopped(Exception):
    pass


@pytest.mark.parametrize("policy", ["equinox", "vtc", "rpm:20"])
@pytest.mark.parametrize("stop", [1, 4, 11])
def test_an_interrupted_run_goes_on_to_the_same_log(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, stop: int
) -> None:
    monkeypatch.setattr(run, "EVENTS", 20)
    monkeypatch.setattr(run, "BETWEEN_S", 0.0)
    calls = [0]

    def watch(count: int, now: float) -> None:
        calls[0] += 1
        if calls[0] > stop:
            raise Stopped

    config = RunConfig(policy, "noise:80", 1)
    with pytest.raises(Stopped):
        simulate_in(tmp_path / "x", scenario, config, watch)
    assert not (tmp_path / "x" / "summary.json").exists()
    read_log(tmp_path / "x" / "log.csv")
    built: list[Any] = []
    monkeypatch.setattr(run, "build", lambda *given: built.append(given))
    summary = simulate_in(tmp_path / "x", scenario, config)
    assert not built  # it went on from the checkpoint
    monkeypatch.undo()
    expected = simulate_in(tmp_path / "y", scenario, config)
    assert (tmp_path / "x" / "log.csv").read_bytes() == (tmp_path / "y" / "log.csv").read_bytes()
    assert {**summary, "cpu_s": 0} == {**expected, "cpu_s": 0}


SLOW = """
import sys, time
from pathlib import Path
from mope.sim import run
from mope.sim.scenario import load_scenario
run.EVENTS, run.BETWEEN_S = 50, 0.0
scenario = load_scenario(sys.argv[1])
run.simulate_in(Path(sys.argv[2]), scenario, run.RunConfig("equinox"), lambda count, now: time.sleep(0.02))
"""


def test_a_killed_run_leaves_a_log_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", SLOW, "vtc/on_off_less", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    try:
        until = time.monotonic() + 60
        while not (folder / "checkpoint").exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "summary.json").exists()
    read_log(folder / "log.csv")
    from mope.sim.scenario import load_scenario

    summary = simulate_in(folder, load_scenario("vtc/on_off_less"), RunConfig("equinox"))
    expected = simulate(load_scenario("vtc/on_off_less"), "equinox")
    assert summary["tokens_per_s"] == expected.summary["tokens_per_s"]
    assert read_log(folder / "log.csv").finish_s.tolist() == expected.log.finish_s.tolist()


def test_a_log_that_breaks_off_can_be_read(scenario: Scenario, tmp_path: Path) -> None:
    simulate_in(tmp_path, scenario, RunConfig("fcfs"))
    path = tmp_path / "log.csv"
    whole, text = read_log(path), path.read_text()
    path.write_text(text[:-7])
    assert len(read_log(path)) == len(whole) - 1
    path.write_text(text.replace(",done\n", "\n", 1))
    with pytest.raises(DataError, match="fields"):
        read_log(path)
    path.write_text("something\n")
    with pytest.raises(DataError, match="first line"):
        read_log(path)
    with pytest.raises(DataError):
        read_log(tmp_path / "nothing.csv")


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("true",)


@pytest.mark.parametrize("content", [b"", b"nothing", pickle.dumps([1]), pickle.dumps(Evil())])
def test_a_checkpoint_from_elsewhere_is_refused(scenario: Scenario, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(BadInput, match="checkpoint"):
        simulate_in(tmp_path, scenario, RunConfig("fcfs"))


def calls(module: str, name: str, argument: str) -> bytes:
    """A pickle that calls `module`.`name` with one text."""
    words = [bytes([len(word)]) + word.encode() for word in (module, name, argument)]
    return b"\x80\x04\x8c" + words[0] + b"\x8c" + words[1] + b"\x93\x8c" + words[2] + b"\x85R."


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("mope.sim.checkpoint", "os.system"),  # through a module of ours to what it imports
        ("mope.sim.run", "Path"),  # a class that is not its own
        ("mope.sim.log", "read_log"),  # a function of ours
        ("mope.mapper.profile", "Profile.load"),
        ("mope.simulated", "x"),
        ("numpy.testing", "runstring"),
        ("builtins", "eval"),
        ("builtins", "object"),
    ],
)
def test_a_checkpoint_cannot_call_what_it_likes(tmp_path: Path, module: str, name: str) -> None:
    (tmp_path / "checkpoint").write_bytes(calls(module, name, f"touch {tmp_path}/done"))
    with pytest.raises(BadInput, match="has no place in a checkpoint"):
        checkpoint.load(tmp_path / "checkpoint", "mine")
    assert not (tmp_path / "done").exists()


class Reaches:
    def __init__(self, owner: object, name: str) -> None:
        self.found = owner, name

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, str]]:
        return getattr, self.found


@pytest.mark.parametrize("name", ["save", "__class__", "forecast"])
def test_a_checkpoint_cannot_reach_into_objects(tmp_path: Path, name: str) -> None:
    profile = Profile.load("llama-2-7b@a10g")
    object.__setattr__(profile, "forecast", 1)
    (tmp_path / "checkpoint").write_bytes(pickle.dumps(Reaches(profile, name)))
    with pytest.raises(BadInput, match=f"{name} of a Profile has no place"):
        checkpoint.load(tmp_path / "checkpoint", "mine")


def test_a_checkpoint_of_another_run_is_not_used(scenario: Scenario, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(pickle.dumps({"run": "other"}))
    assert checkpoint.load(tmp_path / "checkpoint", "mine") is None
    assert simulate_in(tmp_path, scenario, RunConfig("fcfs"))["done"] > 0


@pytest.mark.parametrize(
    ("policy", "predictor", "seed", "hardware"),
    [
        ("fifo", "exact", 0, None),
        ("rpm:many", "exact", 0, None),
        ("fcfs", "best", 0, None),
        ("fcfs", "noise", 0, None),
        ("fcfs", "noise:-3", 0, None),
        ("fcfs", "exact:3", 0, None),
        ("fcfs", "exact", -1, None),
        ("fcfs", "exact", 0, "llama-2-7b@abacus"),
        ("fcfs", "exact", 0, "abacus"),
    ],
)
def test_what_is_not_known_is_refused(
    scenario: Scenario, policy: str, predictor: str, seed: int, hardware: str | None
) -> None:
    with pytest.raises(ConfigError):
        simulate(replace(scenario, hardware=hardware or scenario.hardware), policy, predictor, seed)


def sequences(count: int) -> list[Sequence]:
    lengths = np.random.default_rng(0).integers(1, 2000, count).tolist()
    return [Sequence(i, Arrival(0.0, "a", 100, n)) for i, n in enumerate(lengths)]


@pytest.mark.parametrize(
    ("word", "low", "high"), [("exact", 0, 0), ("noise:80", 75, 81), ("noise:50%", 240, 260)]
)
def test_a_predictor_has_the_error_it_says(word: str, low: float, high: float) -> None:
    oracle = Oracle(word, Profile.load("llama-2-7b@a10g"), 1)
    found = [(oracle.forecast(seq), seq) for seq in sequences(5000)]
    inside = [f.length.low <= seq.output <= f.length.high for f, seq in found if f is not None]
    assert low <= (oracle.mae or 0.0) <= high
    assert np.mean(inside) == pytest.approx(1.0 if word == "exact" else 0.8, abs=0.02)


def test_without_a_predictor_nothing_is_said_and_an_oracle_policy_is_told_the_truth() -> None:
    profile, seq = Profile.load("llama-2-7b@a10g"), sequences(1)[0]
    assert Oracle("none", profile).forecast(seq) is None
    told = Oracle("noise:80", profile, truth=True).forecast(seq)
    assert told is not None
    assert told.length.tokens == seq.output
    assert told.latency_s is not None
    assert told.latency_s.value > 0
    assert told.gpu_util is not None
    assert 0 < told.gpu_util <= 1


def test_the_scheduler_is_given_no_cap_that_gives_the_length_away(
    run_world: Callable[..., Simulation],
) -> None:
    sim = run_world([(0.0, "a", 5, 9)], start=False)
    sim.run(1)
    (job,) = sim.scheduler.jobs.values()
    assert job.request.max_tokens is None
