"""Fair tags on an unmodified vLLM, `--scheduling-policy priority`: opt-in, `make test-vllm`. Steps are exact."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tags import FairTagger
from mope.types import Forecast, Request, Usage

if os.environ.get("MOPE_TEST_VLLM") != "1":
    pytest.skip("needs vLLM: make test-vllm", allow_module_level=True)

_FILE = Path(__file__).parents[3] / "scripts" / "vllm_lab.py"
_spec = importlib.util.spec_from_file_location("vllm_lab", _FILE)
assert _spec is not None
assert _spec.loader is not None
lab = sys.modules.setdefault("vllm_lab", importlib.util.module_from_spec(_spec))
if not hasattr(lab, "make_engine"):
    _spec.loader.exec_module(lab)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lab.make_engine(lab.tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def by_priority(engine: Any) -> Iterator[Any]:
    """vLLM's own scheduler as --scheduling-policy priority makes it."""
    config = lab.made[-1]["vllm_config"].scheduler_config
    before, config.policy = config.policy, "priority"
    with lab.scheduler(engine):
        yield engine
    config.policy = before


def tagger(policy: str) -> FairTagger:
    return FairTagger("vllm", Controller(Settings(policy)))


def run_tagged(engine: Any, made: FairTagger, jobs: Sequence[Any], told: bool, most: int = 1000) -> Any:
    """`lab.run` with a gateway before it: a tag for each arrival, and reports of what came back where `told`.

    A tenant sends its next job as soon as fewer than `most` of its jobs are open.
    """
    inner, log = engine.llm_engine, lab.Log()
    coming, opened = list(range(len(jobs))), Counter[str]()
    while coming or inner.has_unfinished_requests():
        for n in coming[:]:
            job = jobs[n]
            if opened[job.tenant] >= most:
                continue
            coming.remove(n)
            opened[job.tenant] += 1
            request = Request("", id=f"tag-{n}", client=job.tenant, prompt_tokens=job.prompt)
            forecast = Forecast.of_tokens(job.tokens if job.forecast is None else job.forecast)
            priority = made.tag(request, float(log.steps), forecast)
            inner.add_request(f"tag-{n}", lab._prompt(n, job), lab._params(job), priority=priority)
        log.steps += 1
        for output in inner.step():
            n, count = int(output.request_id.split("-")[1]), len(output.outputs[0].token_ids)
            log.made[n] = count
            if told:
                made.progress(f"tag-{n}", count, float(log.steps))
            if output.finished:
                log.last[n] = log.steps
                opened[jobs[n].tenant] -= 1
                made.finish(f"tag-{n}", Usage(count), float(log.steps))
    inner.step()
    return log


@pytest.mark.parametrize(("policy", "told"), [("equinox", True), ("equinox", False), ("vtc:forecast", True)])
def test_the_light_tenant_does_not_wait_for_the_heavy_one(by_priority: Any, policy: str, told: bool) -> None:
    jobs = lab.heavy_and_light()
    fcfs = lab.run(by_priority, jobs)  # every priority 0: first come, first served
    made = tagger(policy)
    log = run_tagged(by_priority, made, jobs, told)
    assert log.made == fcfs.made == dict.fromkeys(range(48), 64)
    assert log.steps == fcfs.steps
    assert log.mean_last(jobs, "light") <= 0.28 * fcfs.mean_last(jobs, "light")
    assert (len(made), made.scheduler.jobs) == (0, {})


def test_a_tenant_whose_forecasts_are_too_low_is_put_right_by_later_tags(by_priority: Any) -> None:
    """Both send all the time; one says 4 tokens where it makes 40. Told of what came, it gets no more than half."""
    jobs = []
    for _ in range(60):
        jobs += [lab.Job("low", tokens=40, forecast=4.0), lab.Job("true", tokens=40, forecast=40.0)]
    shares = {}
    for told in (True, False):
        made = tagger("vtc:forecast")
        if not told:  # tags are never put right
            made.begin = made.finish = made.progress = lambda *_: None  # type: ignore[method-assign]
        log = run_tagged(by_priority, made, jobs, told, most=6)
        first = [n for n, step in log.last.items() if step <= log.steps / 2]
        shares[told] = sum(jobs[n].tenant == "low" for n in first) / len(first)
    assert 0.45 <= shares[True] <= 0.6, shares
    assert shares[False] >= 0.7, shares
