"""Equinox in a real SGLang on a CPU: opt-in, `make test-sglang`. Each world is a process of its own, played once.

Numbers are forward passes and ranks, never seconds: in process they are exact and come out the same each time.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

PYTHON = os.environ.get("MOPE_TEST_SGLANG", "")
HERE = Path(__file__).parent
WORLD_LIMIT_S = 300
PRIORITY = {
    "enable_priority_scheduling": True,
    "schedule_low_priority_values_first": True,
    "disable_priority_preemption": True,
}
FAIR = {"MOPE_SGLANG": "1"}
World = dict[str, Any]
Play = Callable[..., World]

pytestmark = pytest.mark.skipif(not PYTHON, reason="needs SGLang: make test-sglang")


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Plays a plan with environment variables; the same again is not played again."""
    folder, played = tmp_path_factory.mktemp("sglang"), dict[str, World]()

    def one(plan: World | None = None, **variables: str) -> World:
        name = json.dumps([plan, variables], sort_keys=True)
        if name not in played:
            played[name] = played_world(folder / str(len(played)), folder / "model", plan or {}, variables)
        return played[name]

    return one


def played_world(folder: Path, model: Path, plan: World, variables: dict[str, str]) -> World:
    folder.mkdir()
    if plan.get("http"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            plan = {**plan, "http": free.getsockname()[1]}
    (folder / "plan.json").write_text(json.dumps({"model": str(model), **plan}))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOPE_", "PYTHONPATH"))}
    kept |= {"PYTHONPATH": str(HERE / "site"), "MOPE_WATCH": str(folder), "HF_HUB_OFFLINE": "1", **variables}
    files = [str(folder / name) for name in ("plan.json", "found.json")]
    with open(folder / "log", "w") as log:
        world = subprocess.Popen(
            [PYTHON, str(HERE / "world.py"), *files],
            env=kept, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = world.wait(WORLD_LIMIT_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(world.pid, signal.SIGKILL)  # engines leave children behind
    text = (folder / "log").read_text() + "".join(path.read_text() for path in folder.glob("server.log"))
    assert code == 0, text[-4000:]
    found: World = json.loads((folder / "found.json").read_text())
    return {**found, "log": text}


def ends(world: World) -> dict[str, list[int]]:
    """Passes in which the requests of each tenant ended."""
    found = defaultdict(list)
    for rid, (step, _, _) in world["ended"].items():
        if "/" in rid and not rid.startswith(("tail/", "warm/")):
            found[rid.partition("/")[0]].append(step)
    return found


def mean_rank(world: World, tenant: str) -> float:
    """Mean place of a tenant among all requests in the order they ended."""
    order = [rid for rid in world["ended"] if "/" in rid and not rid.startswith(("tail/", "warm/"))]
    return fmean(place for place, rid in enumerate(order, 1) if rid.startswith(f"{tenant}/"))


def settled(world: World) -> None:
    """Nothing is open but the request that made us look; every token was charged to the tenant that got it."""
    [accounts] = world["accounts"]
    assert (accounts["running"], accounts["waiting"], accounts["open"]) == (0, 1, 1)
    assert not any(name.startswith("failures") for name in accounts["totals"])
    made: defaultdict[str, int] = defaultdict(int)
    for rid, (_, tokens, _) in world["ended"].items():
        made[rid.partition("/")[0]] += tokens
    for tenant in ("heavy", "light"):
        assert accounts["clients"][tenant][2] == made[tenant]


def test_a_light_tenant_is_not_behind_a_heavy_one_and_no_pass_is_lost(play: Play) -> None:
    stock, fair = ends(play()), ends(play(**FAIR))
    assert {tenant: len(steps) for tenant, steps in fair.items()} == {"heavy": 40, "light": 8}
    assert fmean(fair["light"]) <= 0.28 * fmean(stock["light"])
    assert max(map(max, fair.values())) == max(map(max, stock.values())) == 768
    settled(play(**FAIR))


def test_installing_it_changes_nothing(play: Play) -> None:
    """The stock world runs with the package installed and the variable not set."""
    assert play()["accounts"] == []
    assert play()["ended"]["heavy/0"][0] < play()["ended"]["heavy/39"][0] < play()["ended"]["light/7"][0]


def test_half_aborted_in_the_middle_leaves_the_counters_settled(play: Play) -> None:
    world = play({"abort": True, "abort_after": 12}, **FAIR)
    settled(world)
    clients = world["accounts"][0]["clients"]
    assert [clients[name][0] + clients[name][1] for name in ("heavy", "light")] == [40, 8]
    assert sum(clients[name][1] for name in ("heavy", "light")) >= 12


def test_retracted_requests_come_back_and_are_charged_once(play: Play) -> None:
    world = play(SGLANG_TEST_RETRACT="1", SGLANG_TEST_RETRACT_INTERVAL="20", **FAIR)
    assert sum(retracted for _, _, retracted in world["ended"].values()) >= 10
    assert {tokens for rid, (_, tokens, _) in world["ended"].items() if not rid.startswith("tail")} == {64}
    settled(world)


def test_a_predictor_that_raises_babbles_and_hangs_costs_no_pass(play: Play) -> None:
    settings = json.dumps({"predictor": "mope_watch:awkward", "deadline_ms": 20})
    world = play(MOPE_EQUINOX=settings, **FAIR)
    assert max(map(max, ends(world).values())) == 768
    assert fmean(ends(world)["light"]) <= 0.28 * fmean(ends(play())["light"])
    assert sum(client[3] for client in world["accounts"][0]["clients"].values()) == 48 + 1  # and a tail
    settled(world)


def test_forecasts_of_the_front_end_arrive(play: Play) -> None:
    settings = json.dumps({"predictor": "mope_watch:exact", "deadline_ms": 5000})
    world = play(MOPE_EQUINOX=settings, **FAIR)
    assert [world["accounts"][0]["clients"][name][3] for name in ("heavy", "light")] == [0, 0]
    assert max(map(max, ends(world).values())) == 768
    settled(world)


def test_two_ranks_come_to_the_same_orders(play: Play) -> None:
    world = play({"server": {"tp_size": 2}}, SGLANG_CPU_OMP_THREADS_BIND="0|1", **FAIR)
    first, second = world["orders"]
    assert first == second
    assert len(first) > 10
    assert world["accounts"][0] == world["accounts"][1]
    assert fmean(ends(world)["light"]) <= 0.28 * 736


def test_overlapped_scheduling_is_served_alike(play: Play) -> None:
    world = play({"server": {"disable_overlap_schedule": False}}, **FAIR)
    assert {tenant: fmean(steps) for tenant, steps in ends(world).items()} == {"heavy": 467.2, "light": 160}
    assert max(map(max, ends(world).values())) == 768
    settled(world)


def test_the_same_over_http_with_the_tenant_in_a_header(play: Play) -> None:
    stock = play({"http": True, "server": {"enable_metrics": True}})
    world = play({"http": True, "server": {"enable_metrics": True}}, **FAIR)
    assert len(world["order"]) == 48
    assert mean_rank(world, "light") <= 0.28 * mean_rank(stock, "light")
    assert 'mope_equinox_finished_total{tenant="light"}' in world["metrics"]
    assert "mope_equinox" not in stock["metrics"]
    assert "fair scheduling by equinox" in world["log"]


def test_tags_as_priorities_on_the_unmodified_engine(play: Play) -> None:
    stock = play({"http": True, "server": {"enable_metrics": True}})
    world = play({"http": True, "tags": "sglang", "header": False, "server": PRIORITY})
    assert world["accounts"] == []
    assert mean_rank(world, "light") <= 0.40 * mean_rank(stock, "light")


def test_a_wrong_setting_ends_the_start_with_a_message(play: Play) -> None:
    with pytest.raises(AssertionError, match="polciy"):
        play({"server": {}}, MOPE_EQUINOX='{"polciy": "vtc"}', **FAIR)
