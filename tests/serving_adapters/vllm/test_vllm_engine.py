"""Equinox in a real vLLM on a CPU: opt-in, `make test-vllm`. Step numbers are exact."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

if os.environ.get("MOPE_TEST_VLLM") != "1":
    pytest.skip("needs vLLM: make test-vllm", allow_module_level=True)

_FILE = Path(__file__).parents[3] / "scripts" / "vllm_lab.py"
_spec = importlib.util.spec_from_file_location("vllm_lab", _FILE)
assert _spec is not None
assert _spec.loader is not None
lab = sys.modules["vllm_lab"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lab)
JOBS = lab.heavy_and_light(tokens=32)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lab.make_engine(lab.tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def stock(engine: Any) -> Any:
    with lab.scheduler(engine):
        return lab.run(engine, JOBS)


@pytest.fixture
def arguments() -> Iterator[dict[str, Any]]:
    """What vLLM made its scheduler with; a test may change it."""
    named = lab.made[-1]
    lab.made.append(dict(named))
    yield lab.made[-1]
    lab.made.pop()


def settled(scheduler: Any) -> None:
    ledger = scheduler.ledger
    metrics = ledger.controller.scheduler.metrics()
    assert not ledger.controller.failures
    assert (ledger.open, ledger.running, ledger.held) == ({}, {}, {})
    assert (metrics.waiting, metrics.running, len(scheduler.waiting)) == (0, 0, 0)


@pytest.mark.parametrize("policy", ["equinox", "vtc", "vtc:forecast"])
def test_the_light_tenant_does_not_wait_for_the_heavy_one(engine: Any, stock: Any, policy: str) -> None:
    with lab.scheduler(engine, lab.fair(policy=policy)) as scheduler:
        log = lab.run(engine, JOBS)
    assert log.made == stock.made == dict.fromkeys(range(48), 32)
    assert log.steps == stock.steps
    assert log.mean_last(JOBS, "light") <= 0.28 * stock.mean_last(JOBS, "light")
    settled(scheduler)


def test_the_async_class_does_the_same(engine: Any, stock: Any) -> None:
    from mope.serving_adapters import vllm_adapter

    def make(**named: Any) -> Any:
        made = vllm_adapter.FairAsyncScheduler(**named)
        made.be_fair(lab.quick_settings())
        return made

    with lab.scheduler(engine, make) as scheduler:
        log = lab.run(engine, JOBS)
    assert log.made == stock.made
    assert log.mean_last(JOBS, "light") <= 0.28 * stock.mean_last(JOBS, "light")
    settled(scheduler)


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_one_tenant_is_served_exactly_as_by_vllm(engine: Any, arguments: dict[str, Any], policy: str) -> None:
    config = arguments["vllm_config"].scheduler_config
    before, config.policy = config.policy, policy
    jobs = [
        lab.Job("one", prompt=8 + n % 5, tokens=5 + 7 * n % 13, at=n // 2, priority=n % 3) for n in range(24)
    ]
    jobs = jobs if policy == "priority" else [replace(job, priority=0) for job in jobs]
    with lab.scheduler(engine):
        theirs = lab.run(engine, jobs)
    with lab.scheduler(engine, lab.fair()) as scheduler:
        ours = lab.run(engine, jobs)
    config.policy = before
    assert (ours.first, ours.last, ours.steps) == (theirs.first, theirs.last, theirs.steps)
    settled(scheduler)


def test_aborting_half_mid_flight_leaves_counters_settled(engine: Any) -> None:
    def abort(step: int, ids: list[str]) -> None:
        if step == 20:
            engine.llm_engine.abort_request(ids[::2], internal=True)

    with lab.scheduler(engine, lab.fair()) as scheduler:
        log = lab.run(engine, JOBS, each_step=abort)
    settled(scheduler)
    clients = scheduler.ledger.controller.scheduler.metrics().clients
    assert sum(one.cancelled for one in clients) == 24
    assert sum(one.finished for one in clients) == len(log.last) == 24
    assert {log.made[n] for n in log.last} == {32}


def tiny_cache(arguments: dict[str, Any], blocks: int) -> None:
    arguments["kv_cache_config"] = replace(arguments["kv_cache_config"], num_blocks=blocks)


def long_jobs() -> list[Any]:
    """Two tenants whose four running requests outgrow nine blocks."""
    block = lab.made[-1]["block_size"]
    return [lab.Job("ab"[n % 2], prompt=block - 8, tokens=2 * block) for n in range(8)]


def test_preemption_by_a_tiny_cache_loses_nothing(engine: Any, arguments: dict[str, Any]) -> None:
    tiny_cache(arguments, 9)
    jobs = long_jobs()
    with lab.scheduler(engine, lab.fair(policy="vtc")) as scheduler:
        log = lab.run(engine, jobs)
    assert log.made == {n: jobs[n].tokens for n in range(8)}
    controller = scheduler.ledger.controller
    assert controller.counts["preempted"] > 0
    settled(scheduler)
    for one in controller.scheduler.metrics().clients:
        assert one.user_counter == pytest.approx(sum(j.prompt + 2 * j.tokens for j in jobs[:4]))


def test_the_victim_is_of_the_tenant_served_most(engine: Any, arguments: dict[str, Any]) -> None:
    tiny_cache(arguments, 9)
    config = arguments["vllm_config"].scheduler_config
    before, config.policy = config.policy, "priority"
    block = arguments["block_size"]
    jobs = [lab.Job("rich", tokens=64)] * 4
    jobs += [lab.Job("rich", block - 8, 2 * block, at=70)] * 2 + [
        lab.Job("poor", block - 8, 2 * block, at=70)
    ] * 2
    ended = {}
    for victim in ("fair", "native"):
        with lab.scheduler(engine, lab.fair(policy="vtc", victim=victim)) as scheduler:
            log = lab.run(engine, jobs)
        ended[victim] = log.mean_last(jobs, "poor")
        assert scheduler.ledger.controller.counts["preempted"] > 0
        assert len(log.last) == 8
        settled(scheduler)
    config.policy = before
    assert ended["fair"] < ended["native"]


def raises(_: Any) -> Any:
    raise OSError("gone")


def hangs(_: Any) -> Any:
    time.sleep(600)


@pytest.mark.parametrize("source", [raises, hangs, lambda asked: [float("nan")] * len(asked)])
def test_a_bad_predictor_never_stops_serving(engine: Any, stock: Any, source: Any) -> None:
    from mope.serving_adapters.forecasts import Advice

    with lab.scheduler(engine, lab.fair()) as scheduler:
        controller = scheduler.ledger.controller
        controller.advice = Advice(source, deadline_ms=20.0)
        log = lab.run(engine, JOBS)
        time.sleep(0.1)
        controller.step()
        controller.advice.close()
    assert log.made == stock.made
    assert log.steps == stock.steps
    counts = controller.advice.counts
    assert counts["asked"] == 48 == counts["failed"] + counts["late"] + counts["garbage"]
    assert sum(one.fallbacks for one in controller.scheduler.metrics().clients) == 48
    settled(scheduler)


def test_the_bundle_that_ships_is_asked_with_the_text_of_the_prompt(engine: Any) -> None:
    with lab.scheduler(engine, lab.fair(predictor="shipped", deadline_ms=60_000.0)) as scheduler:
        advice = scheduler.ledger.controller.advice
        source, texts = advice._source, []

        def predict(asked: list[Any]) -> Any:
            texts.extend(request.prompt for request in asked)
            return source(asked)

        advice._source = predict
        lab.run(engine, [lab.Job("a", prompt=3, tokens=200)] * 12)
        for _ in range(100):
            if sum(advice.counts.values()) == 24:
                break
            time.sleep(0.1)
            scheduler.ledger.controller.step()
        advice.close()
    assert texts[0] == "w4 w5 w6"
    assert advice.counts == {"asked": 12, "used": 12}
    assert scheduler.ledger.controller.scheduler.metrics().clients[0].fallbacks < 12
    settled(scheduler)


def test_the_seam_is_as_tested() -> None:
    from mope.serving_adapters.vllm_seam import check_seam

    check_seam()


def test_installing_changes_nothing_until_the_variable_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.config.scheduler import SchedulerConfig

    from mope.serving_adapters.vllm_adapter import EquinoxScheduler
    from mope.serving_adapters.vllm_plugin import VARIABLE, register

    theirs = SchedulerConfig.get_scheduler_cls
    monkeypatch.setattr(SchedulerConfig, "get_scheduler_cls", theirs)  # put back at the end
    config = lab.made[0]["vllm_config"].scheduler_config
    named = config.scheduler_cls
    monkeypatch.delenv(VARIABLE, raising=False)
    register()
    assert SchedulerConfig.get_scheduler_cls is theirs
    monkeypatch.setenv(VARIABLE, "1")
    register()
    register()
    config.scheduler_cls = None
    assert config.get_scheduler_cls() is EquinoxScheduler
    config.scheduler_cls = named
    assert config.get_scheduler_cls() is lab.recording
