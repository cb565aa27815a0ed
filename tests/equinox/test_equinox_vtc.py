"""VTC: a small world computed by hand, the published algorithm written down again, and Equinox reduced to it."""

from __future__ import annotations

import os
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.equinox import AdmissionConfig, FairScheduler
from mope.equinox.counters import GRAIN, profiled_cost
from mope.equinox.toy import ToyEngine, exact
from mope.types import Capacity, Forecast, Request, Usage

SCALE = float(os.environ.get("MOPE_WORLDS", "1"))
worlds = settings(max_examples=int(150 * SCALE))
seeds = st.integers(0, 2**32)
STRICT = AdmissionConfig(bypass_limit=0)
REDUCED = "equinox:alpha=1,beta=0,delta=0,k_out=2,truth=true"


def trace(scheduler: FairScheduler) -> dict[str, float]:
    return {one.name: one.user / GRAIN for one in scheduler.accounts.by_name.values()}


def send(scheduler, request_id: str, prompt_tokens: int, now: float, predicted: float | None = None) -> None:
    forecast = None if predicted is None else Forecast.of_tokens(predicted)
    request = Request("", request_id, request_id[0], prompt_tokens=prompt_tokens)
    scheduler.submit(request, now, forecast)


def test_a_small_world_computed_by_hand():
    """w_p = 1, w_q = 2, two slots. a1 and a2 are 4 prompt + 2 output tokens, b1 is 2 + 3, b2 is 2 + 1."""
    vtc, two, one = FairScheduler("vtc", admission=STRICT), Capacity(1000, 2), Capacity(1000, 1)
    for request_id, prompt in (("a1", 4), ("a2", 4), ("b1", 2), ("b2", 2)):
        send(vtc, request_id, prompt, 0.0)
    assert trace(vtc) == {"a": 0, "b": 0}  # b is lifted to min = 0
    assert vtc.next(two, 0.0).id == "a1"  # a tie: the older head
    assert vtc.next(one, 0.0).id == "b1"
    assert vtc.next(Capacity(1000, 0), 0.0) is None
    assert trace(vtc) == {"a": 4, "b": 2}
    vtc.progress("a1", 1, 1.0), vtc.progress("b1", 1, 1.0)
    assert trace(vtc) == {"a": 6, "b": 4}
    vtc.finish("a1", Usage(2), 2.0), vtc.progress("b1", 2, 2.0)
    assert trace(vtc) == {"a": 8, "b": 6}
    assert vtc.next(one, 2.0).id == "b2"  # 6 < 8; nothing of b waits any more
    assert trace(vtc) == {"a": 8, "b": 8}
    vtc.finish("b1", Usage(3), 3.0), vtc.finish("b2", Usage(1), 3.0)
    assert trace(vtc) == {"a": 8, "b": 12}
    assert vtc.next(two, 3.0).id == "a2"  # a is the last that left
    assert trace(vtc) == {"a": 12, "b": 12}
    vtc.progress("a2", 1, 4.0)
    send(vtc, "c1", 1, 4.0)  # the queue is empty: max(0, c_a = 14)
    send(vtc, "d1", 1, 4.0)  # it is not: max(0, min = c_c = 14)
    send(vtc, "b3", 9, 4.0)  # max(12, 14)
    assert trace(vtc) == {"a": 14, "b": 14, "c": 14, "d": 14}
    assert [vtc.next(two, 4.0).id for _ in range(3)] == ["c1", "d1", "b3"]
    assert trace(vtc) == {"a": 14, "b": 23, "c": 15, "d": 15}
    send(vtc, "c2", 1, 4.0)  # the queue is empty, b left last: max(15, 23)
    assert trace(vtc)["c"] == 23


def test_predicted_lengths_computed_by_hand():
    """Algorithm 3: input and prediction at admission, tokens beyond it as they come, the rest back at the end."""
    vtc = FairScheduler("vtc:forecast", admission=STRICT)
    send(vtc, "a1", 4, 0.0, predicted=3)
    send(vtc, "b1", 2, 0.0, predicted=1)
    for _ in range(2):
        vtc.next(Capacity(1000, 2), 0.0)
    assert trace(vtc) == {"a": 10, "b": 4}
    vtc.progress("a1", 1, 1.0), vtc.progress("b1", 1, 1.0)
    assert trace(vtc) == {"a": 10, "b": 4}
    vtc.finish("a1", Usage(2), 2.0), vtc.progress("b1", 2, 2.0)
    assert trace(vtc) == {"a": 8, "b": 6}
    vtc.finish("b1", Usage(3), 3.0)
    assert trace(vtc) == {"a": 8, "b": 8}


def test_the_running_mean_starts_at_nothing_and_keeps_four_fifths():
    vtc = FairScheduler("vtc:mean")
    charged = []
    for i, output in enumerate((10, 20, 0)):
        send(vtc, f"a{i}", 1, float(i))
        before = vtc.accounts.of("a").user
        vtc.next(Capacity(1000), float(i))
        charged.append((vtc.accounts.of("a").user - before) / GRAIN)
        vtc.finish(f"a{i}", Usage(output), i + 0.5)
    assert charged == [1, 1 + 2 * 10, 1 + 2 * 12]  # (4 * 10 + 20) / 5 = 12


def test_weights_divide_and_the_profiled_cost_is_the_published_one():
    vtc = FairScheduler("vtc:cost=profiled,predict=oracle", weights={"a": 2.0})
    send(vtc, "a1", 100, 0.0, predicted=50)
    vtc.next(Capacity(1000), 0.0)
    by_hand = 0.21001891 * 100 + 0.10075395 * 50 + 0.0039868 * 5000 + 0.00324733 * 2500 + 1.14601454
    assert profiled_cost(100, 50) == pytest.approx(by_hand)
    assert trace(vtc)["a"] == pytest.approx(by_hand / 2)


def test_lcf_is_vtc_without_the_lift():
    for policy, lifted in (("vtc", 4.0), ("lcf", 0.0)):
        scheduler = FairScheduler(policy)
        send(scheduler, "a1", 4, 0.0), send(scheduler, "a2", 4, 0.0)
        scheduler.next(Capacity(1000), 0.0)
        send(scheduler, "b1", 2, 0.0)
        assert trace(scheduler)["b"] == lifted


class Published:
    """Algorithm 2 of the paper with a linear scan; a tie goes to the older head."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights, self.counters = weights, defaultdict(float)
        self.queue: list[Request] = []
        self.last: str | None = None

    def send(self, request: Request) -> None:
        u, queued = request.client, {one.client for one in self.queue}
        if u not in queued:
            level = min(
                (self.counters[i] for i in queued), default=self.counters[self.last] if self.last else 0
            )
            self.counters[u] = max(self.counters[u], level)
        self.queue.append(request)

    def take(self, fits) -> str | None:
        if not self.queue:
            return None
        heads = {one.client: one for one in reversed(self.queue)}
        request = min(heads.values(), key=lambda one: (self.counters[one.client], self.queue.index(one)))
        if not fits(request):
            return None
        self.queue.remove(request)
        if all(one.client != request.client for one in self.queue):
            self.last = request.client
        self.counters[request.client] += request.prompt_tokens / self.weights[request.client]
        return request.id

    def decoded(self, request: Request) -> None:
        self.counters[request.client] += 2 / self.weights[request.client]


@worlds
@given(seeds, st.integers(1, 6), st.integers(60, 300))
def test_it_is_the_published_algorithm_event_for_event(seed, slots, pool):
    """Random arrivals of clients that come and go; binary weights, so that floats are exact as well."""
    rng = random.Random(seed)
    weights = {f"c{i}": rng.choice([0.5, 1.0, 2.0, 4.0]) for i in range(4)}
    scheduler, published = FairScheduler("vtc", admission=STRICT, weights=weights), Published(weights)
    engine = ToyEngine(scheduler, pool=pool, slots=slots)
    rates = {name: rng.choice([0.02, 0.1, 0.5]) for name in weights}
    for step in range(120):
        for name, rate in rates.items():
            if rng.random() < rate:
                request = Request("", f"{name}-{step}", name, prompt_tokens=rng.randrange(1, 30))
                engine.send(request, rng.randrange(1, 30))
                published.send(request)
        admitted, running = [], dict(engine.running)
        while (request_id := published.take(lambda one, held=running: fits(engine, one, held))) is not None:
            admitted.append(request_id)
            running[request_id] = engine.requests[request_id]
        assert engine.tick() == admitted
        for request in running.values():
            published.decoded(request)
        assert trace(scheduler) == {name: published.counters[name] for name in trace(scheduler)}


def fits(engine: ToyEngine, request: Request, running: dict[str, Request]) -> bool:
    need = reserved(engine, request) if running else request.prompt_tokens + 1  # alone
    held = sum(reserved(engine, one) for one in running.values())
    return need <= engine.pool - held and len(running) < engine.slots


def reserved(engine: ToyEngine, request: Request) -> int:
    return request.prompt_tokens + engine.truth[request.id]


@worlds
@given(seeds, st.integers(1, 6), st.integers(60, 300), st.sampled_from([0, 2, 16]), st.booleans())
def test_equinox_reduced_is_vtc_with_an_oracle_event_for_event(seed, slots, pool, limit, preempts):
    """alpha = 1, beta = 0, delta = 0, k_out = 2: the same log, with any weights, bypasses and preemptions."""
    logs = []
    for policy in ("vtc:oracle", REDUCED):
        rng = random.Random(seed)
        weights = {f"c{i}": rng.choice([0.3, 1.0, 1.7]) for i in range(4)}
        config = AdmissionConfig(bypass_limit=limit)
        scheduler = FairScheduler(policy, admission=config, weights=weights)
        assert scheduler.policy.oracle
        engine = ToyEngine(scheduler, pool=pool, slots=slots, foresee=exact)
        for step in range(100):
            for name in weights:
                if rng.random() < 0.2:
                    request = Request("", f"{name}-{step}", name, prompt_tokens=rng.randrange(1, 30))
                    engine.send(request, rng.randrange(1, 30))
            engine.tick()
            if preempts and engine.running and rng.random() < 0.1:
                engine.preempt(next(reversed(engine.running)))
        logs.append(engine.log)
    assert logs[0] == logs[1]


@worlds
@given(seeds, st.integers(1, 100))
def test_equinox_reduced_gives_the_same_answers_in_any_world(play, seed, length):
    answers = []
    for policy in ("vtc:oracle", REDUCED):
        world = play(FairScheduler(policy), seed)
        world.sweep = lambda: None  # what a dropped client's mean was is no part of VTC
        world.play(length)
        answers.append(world.answers)
    assert answers[0] == answers[1]
