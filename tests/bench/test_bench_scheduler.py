"""The bench of the scheduler: what it times and how it sums up, not how long it takes."""

from __future__ import annotations

import itertools
import json

import pytest
from typer.testing import CliRunner

from mope.bench.scheduler import (
    DequeLane,
    LinearLane,
    World,
    median_interval,
    scheduler_latency,
    scheduler_memory,
)
from mope.cli import build_app
from mope.equinox import FairScheduler


@pytest.mark.parametrize("make", [DequeLane, LinearLane, lambda: FairScheduler("equinox")])
def test_a_cycle_starts_one_and_finishes_it_and_keeps_all_clients_active(make):
    world = World(make(), 5, seed=0)
    world.cycle(40)
    if isinstance(world.lane, FairScheduler):
        assert len(world.lane.jobs) == 10
        assert sum(account.head is not None for account in world.lane.accounts.by_name.values()) == 5
    else:
        queues = getattr(world.lane, "queues", {"": world.lane.waiting})
        assert sum(map(len, queues.values())) == 10
        assert not world.lane.running


def test_a_cycle_is_timed_in_microseconds():
    ticks = itertools.count(0.0, 5e-6)
    assert World(DequeLane(), 3, seed=0).cycle(7, clock=lambda: next(ticks)) == pytest.approx(5.0)


def test_the_linear_scan_serves_by_counter():
    world = World(LinearLane(), 3, seed=0)
    world.cycle(300)
    counters = world.lane.counters.values()
    assert max(counters) - min(counters) < 0.1 * max(counters)


def test_the_interval_of_a_median():
    assert median_interval([5.0]) == (5.0, 5.0, 5.0)
    assert median_interval([float(i) for i in range(100)]) == (40.0, 49.5, 59.0)


def test_ratios_stand_side_by_side():
    numbers = scheduler_latency([3, 6], ["vtc:oracle", "fcfs"], repeats=3)
    assert numbers["vtc_growth_us"] == numbers["vtc_6_us"] / numbers["vtc_3_us"]
    assert numbers["fcfs_3_over_deque"] == numbers["fcfs_3_us"] / numbers["deque_3_us"]
    assert numbers["linear_6_over_vtc"] == numbers["linear_6_us"] / numbers["vtc_6_us"]


def test_a_great_many_clients_are_timed_for_the_first_policy_only(monkeypatch):
    monkeypatch.setattr("mope.bench.scheduler.MANY", 5)
    numbers = scheduler_latency([3, 6], ["vtc:oracle", "fcfs"], repeats=2)
    assert {"vtc_6_us", "deque_6_us"} <= numbers.keys()
    assert "fcfs_6_us" not in numbers
    assert numbers["fcfs_growth_us"] == 1.0


def test_a_client_is_small_and_an_idle_one_is_nothing():
    numbers = scheduler_memory(2000, after=200)
    assert 300 < numbers["active_client_bytes"] <= 1024
    assert numbers["idle_clients_kept"] == 0


def test_the_command_prints_one_document(monkeypatch):
    monkeypatch.setattr("mope.bench.scheduler.MEMORY_CLIENTS", 200)
    words = ["bench", "scheduler", "--clients", "3", "--clients", "6", "--repeats", "2", "--json"]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    assert {
        "machine",
        "equinox_3_us",
        "equinox_growth_us",
        "linear_6_us",
        "active_client_bytes",
    } <= numbers.keys()
