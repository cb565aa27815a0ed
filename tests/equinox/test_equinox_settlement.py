"""Whatever was foreseen and in whatever order things happened, a settled counter is that of the true charges."""

from __future__ import annotations

import math
import os
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.equinox import FairScheduler
from mope.equinox.counters import GRAIN, profiled_cost
from mope.types import Capacity, Forecast, Request, Usage

SCALE = float(os.environ.get("MOPE_WORLDS", "1"))
worlds = settings(max_examples=int(250 * SCALE))
seeds = st.integers(0, 2**32)
lengths = st.integers(1, 100)
WEIGHTS = {"c0": 1.0, "c1": 3.0, "c2": 0.1, "c3": 2**0.5}
POLICIES = [
    "vtc:mean", "vtc:forecast", "vtc:forecast,cost=profiled", "equinox", "equinox:latency=arrival",
    "equinox:resource=work,normaliser=unit",
]  # fmt: skip


class Book:
    """Charges with true values, written down as they are due and added up at the end.

    A client's counter is a list of terms: a lift raises what stands before it to a level, a charge adds. What
    a job costs in a stint is only known when the stint ends, but its place is where it was admitted.
    """

    def __init__(self, world) -> None:
        self.world = world
        self.terms = defaultdict(list)
        self.place: dict[str, list] = {}  # id -> the term of its running stint
        self.paid = defaultdict(lambda: (0.0, 0.0))  # id -> true charges of ended stints

    def __call__(self, what: str, request_id: str, **more) -> None:
        getattr(self, f"on_{what}", lambda *_, **__: None)(request_id, **more)

    def account(self, request_id: str) -> str:
        return self.world.requests[request_id].client

    def on_activate(self, request_id: str) -> None:
        """The level is what the counters of the client to be served next are now, however they came about."""
        accounts = self.world.scheduler.accounts.by_name.values()
        active = [one for one in accounts if one.head is not None]
        level = min(active, key=lambda one: (one.score, one.head.number), default=None)
        level = level or self.world.scheduler.accounts.last_left
        if level is not None and level.name != self.account(request_id) and self.world.scheduler.policy.lifts:
            self.terms[self.account(request_id)].append(("lift", level.user / GRAIN, level.resource / GRAIN))

    def on_admit(self, request_id: str) -> None:
        term = ["charge", 0.0, 0.0]
        self.terms[self.account(request_id)].append(term)
        self.place[request_id] = term

    def due(self, request_id: str, usage: Usage | None) -> tuple[float, float]:
        world, request = self.world, self.world.requests[request_id]
        made = world.served[request_id]
        if usage is None and not made:
            return 0.0, 0.0
        job = world.scheduler.jobs[request_id]
        service_s, rate, util = world.ran_s[request_id], None, job.util
        if usage is not None:
            if usage.latency_s is not None and math.isfinite(usage.latency_s):
                service_s = usage.latency_s
            if usage.gpu_util is not None and math.isfinite(usage.gpu_util):
                util = min(usage.gpu_util, 1.0)
            if usage.tokens_per_s is not None and math.isfinite(usage.tokens_per_s):
                rate = usage.tokens_per_s
        if rate is None:
            rate = made / service_s if service_s else job.rate
        prompt = usage.prompt_tokens if usage and usage.prompt_tokens is not None else request.prompt_tokens
        waits = world.head_s[request_id], world.queued_s[request_id]
        weight = WEIGHTS[request.client]
        return true_charge(world.scheduler.policy, weight, prompt, made, *waits, service_s, rate, util)

    def settle(self, request_id: str, usage: Usage | None) -> None:
        due, paid = self.due(request_id, usage), self.paid[request_id]
        more = [due[0] - paid[0], due[1] - paid[1]]
        if request_id in self.place:
            self.place.pop(request_id)[1:] = more
        else:  # a late finish of one that waits again: charged now
            self.terms[self.account(request_id)].append(("charge", *more))
        self.paid[request_id] = due

    def on_finish(self, request_id: str, usage: Usage) -> None:
        self.settle(request_id, usage)

    def on_cancel(self, request_id: str) -> None:
        if request_id in self.world.running:
            self.settle(request_id, None)

    def on_requeue(self, request_id: str) -> None:
        self.settle(request_id, None)
        self.pending = request_id

    def total(self, client: str) -> tuple[float, float]:
        user = resource = 0.0
        for kind, more_user, more_resource in self.terms[client]:
            if kind == "lift":
                user, resource = max(user, more_user), max(resource, more_resource)
            else:
                user, resource = user + more_user, resource + more_resource
        return user, resource


def true_charge(policy, weight, prompt, output, head_s, queued_s, service_s, rate, util):
    """The formulas, written out once more."""
    config = policy.config
    if policy.name == "vtc":
        cost = prompt + 2 * output if config.cost == "tokens" else profiled_cost(prompt, output)
        return cost / weight, 0.0
    felt = (head_s if config.latency == "head" else queued_s) + service_s
    user = (prompt + 4 * output) / (weight * (1 + 0.1 * felt))
    resource = min(rate, 2500.0) if config.resource == "rate" else service_s
    return user, resource * util / weight


class RequeueBook(Book):
    """Splits a requeue in its two halves, so that the level of its lift is read between them."""

    def __init__(self, world) -> None:
        super().__init__(world)
        activate = world.scheduler.accounts.activate

        def watched(account, first):
            if getattr(self, "pending", None) is not None:
                request_id, self.pending = self.pending, None
                self.on_activate(request_id)
            activate(account, first)

        world.scheduler.accounts.activate = watched

    def on_requeued(self, request_id: str) -> None:
        self.pending = None


class Meter(RequeueBook):
    """Plain VTC: the prompt at admission, each token when it is known of."""

    def on_admit(self, request_id: str) -> None:
        if not self.world.served[request_id]:
            super().on_admit(request_id)
            request = self.world.requests[request_id]
            self.place[request_id][1] = request.prompt_tokens / WEIGHTS[request.client]

    def on_progress(self, request_id: str, more: int) -> None:
        client = self.account(request_id)
        self.terms[client].append(("charge", 2 * more / WEIGHTS[client], 0.0))

    def settle(self, request_id: str, usage: Usage | None) -> None:
        request, term = self.world.requests[request_id], self.place[request_id]
        if usage is None and not self.world.served[request_id]:
            term[1] = 0.0
        elif not term[1]:  # it finished after it was said to be preempted and was refunded
            self.terms[request.client].append(
                ("charge", request.prompt_tokens / WEIGHTS[request.client], 0.0)
            )


@worlds
@given(seeds, lengths)
def test_a_metered_counter_is_the_sum_of_what_was_served(play, seed, length):
    world = play(FairScheduler("vtc", weights=WEIGHTS), seed)
    world.usage = lambda request_id: Usage(world.truth[request_id])
    world.watchers.append(book := Meter(world))
    world.play(length)
    check(world, book, set())
    world.drain()
    check(world, book, set())


@worlds
@given(seeds, lengths, st.sampled_from(POLICIES))
def test_a_settled_counter_is_that_of_the_true_charges(play, seed, length, policy):
    world = play(FairScheduler(policy, weights=WEIGHTS), seed)
    book = RequeueBook(world)
    world.watchers.append(book)
    for _ in range(length):
        world.event()
        busy = {world.requests[request_id].client for request_id in world.running}
        check(world, book, busy)
    world.drain()
    check(world, book, set())


def check(world, book, busy) -> None:
    for account in world.scheduler.accounts.by_name.values():
        if account.name not in busy:
            user, resource = book.total(account.name)
            assert account.user / GRAIN == pytest.approx(user, rel=1e-9, abs=1e-12)
            assert account.resource / GRAIN == pytest.approx(resource, rel=1e-9, abs=1e-12)


@worlds
@given(seeds, lengths)
def test_forecasts_leave_no_trace_once_all_is_settled(play, seed, length):
    """One client served in one order, once with forecasts of any kind and once with the truth: to the last bit."""
    ends = []
    for wrong in (False, True):
        draw = random.Random(seed)

        def forecasts(rng, truth, wrong=wrong, draw=draw):
            factor = draw.choice([0.1, 1, 1e3])
            return Forecast.of_tokens(truth * factor if wrong else truth)

        scheduler = FairScheduler("vtc:forecast", weights=WEIGHTS)
        world = play(scheduler, seed, clients=1, forecasts=forecasts)
        world.own_choice = world.progress = world.requeue = world.cancel = lambda: None
        world.capacity = lambda: Capacity(10**9, 99)
        world.play(length)
        world.drain()
        ends.append(counters_of(scheduler))
    assert ends[0] == ends[1]


def counters_of(scheduler) -> dict[str, int]:
    return {one.name: one.user for one in scheduler.accounts.by_name.values()}


def test_huge_and_tiny_charges_leave_nothing_behind():
    """What floats would lose: 1e15 predicted tokens come and go over a counter of a few."""
    scheduler = FairScheduler("vtc:forecast", weights={"a": 1e-6})
    for i in range(50):
        request = Request("", f"a{i}", "a", prompt_tokens=1)
        scheduler.submit(request, 0.0, Forecast.of_tokens(1e5 + i / 7))
        scheduler.next(Capacity(1e9, 99), 0.0)
    for i in range(50):
        scheduler.finish(f"a{i}", Usage(1), 1.0)
    assert scheduler.accounts.by_name["a"].user == 50 * int(3 / 1e-6 * GRAIN)


def test_a_preempted_request_is_not_charged_twice():
    scheduler = FairScheduler("vtc:forecast")
    room = Capacity(1e6, 9)
    scheduler.submit(Request("", "a", "a", prompt_tokens=100), 0.0, Forecast.of_tokens(50))
    account = scheduler.accounts.by_name["a"]
    scheduler.next(room, 0.0)
    assert account.user == 200 * GRAIN
    scheduler.progress("a", 10, 1.0)
    scheduler.requeue("a", 1.0)
    assert account.user == 120 * GRAIN  # what was served stays
    scheduler.next(room, 2.0)
    assert account.user == 200 * GRAIN
    scheduler.finish("a", Usage(60), 3.0)
    assert account.user == 220 * GRAIN
    scheduler.finish("a", Usage(60), 4.0)  # the engine says it twice
    scheduler.cancel("a", 5.0)
    assert account.user == 220 * GRAIN


def test_an_abort_refunds_what_was_not_served():
    scheduler = FairScheduler("vtc:forecast")
    scheduler.submit(Request("", "a", "a", prompt_tokens=100), 0.0, Forecast.of_tokens(50))
    scheduler.next(Capacity(1e6), 0.0)
    scheduler.cancel("a", 1.0)
    assert scheduler.accounts.by_name["a"].user == 0


def test_tokens_beyond_the_forecast_are_charged_as_they_come():
    scheduler = FairScheduler("vtc:forecast")
    scheduler.submit(Request("", "a", "a", prompt_tokens=10), 0.0, Forecast.of_tokens(5))
    scheduler.next(Capacity(1e6), 0.0)
    account = scheduler.accounts.by_name["a"]
    seen = []
    for made in (3, 5, 6, 9, 7):
        scheduler.progress("a", made, 1.0)
        seen.append(account.user / GRAIN)
    assert seen == [20, 20, 22, 28, 28]
