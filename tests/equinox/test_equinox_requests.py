"""Requests: none lost, doubled or run after its end; first in, first out; no idling; nobody starves."""

from __future__ import annotations

import os
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.equinox import AdmissionConfig, FairScheduler
from mope.equinox.toy import ToyEngine
from mope.types import Capacity, Forecast, Request

SCALE = float(os.environ.get("MOPE_WORLDS", "1"))
worlds = settings(max_examples=int(200 * SCALE))
seeds = st.integers(0, 2**32)
lengths = st.integers(1, 80)
policies = st.sampled_from(
    ["fcfs", "vtc", "vtc:mean", "vtc:forecast", "lcf", "equinox", "equinox:latency=arrival"]
)


@worlds
@given(seeds, lengths, policies)
def test_no_request_is_lost_doubled_or_run_after_its_end(play, seed, length, policy):
    world = play(FairScheduler(policy), seed)
    world.play(length)
    waiting = {request_id for queue in world.queues.values() for request_id in queue}
    scheduler = world.scheduler
    assert {i for i, job in scheduler.jobs.items() if not job.running} == waiting
    assert {i for i, job in scheduler.jobs.items() if job.running} == world.running.keys()
    assert scheduler.running == len(world.running)
    world.drain()  # `start` raises where a request runs that does not wait
    assert world.over.keys() == world.requests.keys()
    assert not scheduler.jobs
    assert scheduler.growth_tokens == 0
    assert all(not one.running and not one.waiting for one in scheduler.accounts.by_name.values())


@worlds
@given(seeds, lengths, policies)
def test_each_client_is_served_first_in_first_out(play, seed, length, policy):
    world = play(FairScheduler(policy), seed)

    def watch(what, request_id, **more):
        if what == "ask":
            world.heads = {queue[0] for queue in world.queues.values() if queue}
        elif what == "choose":
            world.heads = {request_id}
        elif what == "admit":
            assert request_id in world.heads

    world.watchers.append(watch)
    world.play(length)
    world.drain()


def fits(world, request_id: str, capacity: Capacity) -> bool:
    """Whether a waiting request fits, said by what is public."""
    need = world.scheduler.reserved_tokens(request_id)
    if not world.running:
        request = world.requests[request_id]
        need = request.prompt_tokens + world.served[request_id] + 1
    return need <= capacity.kv_tokens and capacity.slots >= 1


@worlds
@given(seeds, lengths, policies, st.sampled_from([0, 1, 3, 10**9]))
def test_it_never_idles_while_a_head_fits_but_for_one_owed_the_room(play, seed, length, policy, limit):
    config = AdmissionConfig(bypass_limit=limit, bypass_s=1e9)
    world = play(FairScheduler(policy, admission=config), seed)

    def watch(what, request_id, **more):
        if what == "none":
            heads = [queue[0] for queue in world.queues.values() if queue]
            owed = [i for i in heads if world.scheduler.jobs[i].account.bypassed >= limit]
            fitting = [i for i in heads if fits(world, i, more["capacity"])]
            assert not fitting or any(key(world, i) < min(key(world, j) for j in fitting) for i in owed)

    world.watchers.append(watch)
    world.play(length)


def key(world, request_id: str) -> tuple[int, int]:
    job = world.scheduler.jobs[request_id]
    return job.account.score, job.number


@worlds
@given(
    seeds, st.integers(20, 120), policies, st.sampled_from([0, 1, 3, 10**9]), st.sampled_from([0.5, 2.0, 1e9])
)
def test_a_head_is_passed_within_its_bound(play, seed, length, policy, limit, seconds):
    """At most `limit` times and for at most `seconds`; but by an engine's own choice as often as it likes."""
    scheduler = FairScheduler(policy, admission=AdmissionConfig(bypass_limit=limit, bypass_s=seconds))
    world = play(scheduler, seed)
    world.own_choice = lambda: None
    passes, first = defaultdict(int), {}

    def watch(what, request_id, **more):
        if what == "ask":
            heads = [queue[0] for queue in world.queues.values() if queue]
            world.keys = {i: key(world, i) for i in heads}
            world.stuck = {i for i in heads if scheduler.jobs[i].stuck}  # known not to fit an empty engine
            world.alone = not world.running
        elif what == "admit":
            mine = world.keys.pop(request_id)
            passes[request_id], first[request_id] = 0, None  # it may be preempted and wait once more
            passed = [i for i, its in world.keys.items() if its < mine and i not in world.stuck]
            for other in [] if world.alone else passed:
                passes[other] += 1
                first[other] = world.now if first.get(other) is None else first[other]
                assert passes[other] <= limit
                assert world.now - first[other] < seconds

    world.watchers.append(watch)
    world.play(length)


@worlds
@given(seeds, policies, st.integers(0, 8), st.integers(2, 6))
def test_the_largest_request_is_admitted_beside_a_flood(play, seed, policy, limit, others):
    """The flood never ends; the request that needs the whole pool runs all the same."""
    import random

    rng = random.Random(seed)
    scheduler = FairScheduler(policy, admission=AdmissionConfig(bypass_limit=limit, bypass_s=1e9))
    engine = ToyEngine(scheduler, pool=100, slots=8)
    sent = 0
    for step in range(600):
        while sum(account.waiting for account in scheduler.accounts.by_name.values()) < 2 * others:
            sent += 1
            request = Request("", f"s{sent}", f"c{sent % others}", prompt_tokens=rng.randrange(1, 8))
            engine.send(request, rng.randrange(1, 8))
        if step == 20:
            engine.send(Request("", "large", "big", prompt_tokens=60), 40)
        engine.tick()
        if "large" in engine.running:
            return
    pytest.fail("the largest request starves")


def test_a_client_that_goes_on_sending_is_not_passed_more_often():
    scheduler = FairScheduler("fcfs", admission=AdmissionConfig(bypass_limit=2, bypass_s=1e9))
    small = Forecast.of_tokens(1)
    scheduler.submit(Request("", "runs", "r", prompt_tokens=1), 0.0, small)
    scheduler.next(Capacity(100), 0.0)
    scheduler.submit(Request("", "large", "a", prompt_tokens=90), 0.0, small)
    got = []
    for i in range(4):
        scheduler.submit(Request("", f"a{i}", "a", prompt_tokens=1), 1.0 + i, small)
        scheduler.submit(Request("", f"b{i}", "b", prompt_tokens=1), 1.0 + i, small)
        request = scheduler.next(Capacity(50), 1.0 + i)
        got.append(request and request.id)
    assert got == ["b0", "b1", None, None]
    assert scheduler.next(Capacity(100), 9.0).id == "large"


def test_a_prediction_too_long_for_the_engine_does_not_block_it():
    scheduler = FairScheduler("vtc")
    scheduler.submit(Request("", "a", "a", prompt_tokens=10), 0.0, Forecast.of_tokens(10_000))
    assert scheduler.next(Capacity(100), 0.0).id == "a"  # nothing runs: what it needs now is enough


def test_a_prompt_too_long_for_the_engine_blocks_only_its_own_client():
    scheduler = FairScheduler("vtc", admission=AdmissionConfig(bypass_limit=0))
    scheduler.submit(Request("", "a", "a", prompt_tokens=1000), 0.0)
    for i in range(3):
        scheduler.submit(Request("", f"b{i}", "b", prompt_tokens=10), 0.0, Forecast.of_tokens(5))
    assert [scheduler.next(Capacity(100), 0.0).id for _ in range(3)] == ["b0", "b1", "b2"]
    scheduler.cancel("a", 1.0)
    assert scheduler.next(Capacity(100), 1.0) is None


def test_the_peeked_request_is_pinned_for_the_step():
    scheduler = FairScheduler("vtc")
    room = Capacity(1000, 4)
    scheduler.submit(Request("", "a", "a", prompt_tokens=10), 0.0)
    scheduler.admit("a", 0.0)
    scheduler.submit(Request("", "a2", "a", prompt_tokens=10), 0.0)
    assert scheduler.peek(room, 1.0).id == "a2"
    scheduler.submit(Request("", "b", "b", prompt_tokens=10), 1.0)
    scheduler.cancel("a", 1.0)  # refunds client a
    assert scheduler.peek(room, 1.0).id == "a2"  # as long as the step lasts
    scheduler.admit("a2", 1.0)
    assert scheduler.peek(room, 1.0).id == "b"
    scheduler.submit(Request("", "c", "c", prompt_tokens=10), 1.0)
    scheduler.cancel("b", 1.0)
    assert scheduler.peek(room, 1.0).id == "c"
