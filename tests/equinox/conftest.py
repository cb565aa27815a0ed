"""Random worlds: events against a scheduler, beside a plain record of what must be true of it.

The record is kept by other means than the scheduler's: lists instead of links, waiting summed over time steps
instead of differences, floats instead of integers, charges written down and added up at the end.
"""

from __future__ import annotations

import math
import os
import random
from collections import defaultdict

import pytest
from hypothesis import Phase, settings

from mope.equinox import FairScheduler
from mope.equinox.counters import GRAIN
from mope.types import Capacity, Forecast, LengthForecast, Request, Span, Usage

LEVELS = (0.1, 0.5, 0.9)

if os.environ.get("MOPE_SHRINK") == "0":  # scripts/mutants.py: that a test fails is enough to know
    settings.register_profile("found", phases=[Phase.generate], report_multiple_bugs=False)
    settings.load_profile("found")


def forecast_of(rng: random.Random, truth: int) -> Forecast | None:
    """From exact to useless: exact, off by up to ten times, with times and rates, broken, none."""
    kind = rng.randrange(8)
    if kind == 0:
        return None
    if kind == 1:
        return Forecast.of_tokens(rng.choice([math.nan, math.inf, -math.inf, -5.0]))
    tokens = truth * rng.choice([0.1, 0.5, 1.0, 1.0, 2.0, 10.0])
    high = rng.choice([tokens, tokens * 1.5, math.nan, math.inf])
    length = LengthForecast(tokens, tokens, high, LEVELS, (tokens / 2, tokens, high), "", (0, 0, 0))
    if kind < 5:
        return Forecast(length)
    span = Span(rng.choice([0.0, 0.01, 2.0, math.nan, math.inf]), 0.0, 9.0)
    return Forecast(length, latency_s=span, tokens_per_s=span, gpu_util=rng.choice([0.3, 1.0, 7.0, math.nan]))


class Play:
    """`events` random events. What it records is checked by the tests."""

    def __init__(
        self, scheduler: FairScheduler, seed: int, *, clients: int = 4, forecasts=forecast_of, pool: int = 600
    ) -> None:
        self.scheduler, self.rng = scheduler, random.Random(seed)
        self.names = [f"c{i}" for i in range(clients)]
        self.forecasts, self.pool = forecasts, pool
        self.now, self.count = 0.0, 0
        self.requests: dict[str, Request] = {}
        self.truth: dict[str, int] = {}
        self.queues: dict[str, list[str]] = defaultdict(list)  # by client, oldest first
        self.running: dict[str, int] = {}  # id -> tokens known of
        self.over: dict[str, str] = {}  # id -> finished or cancelled
        self.served: dict[str, int] = defaultdict(int)
        self.head_s: dict[str, float] = defaultdict(float)
        self.queued_s: dict[str, float] = defaultdict(float)
        self.ran_s: dict[str, float] = defaultdict(float)
        self.started: set[str] = set()
        self.passes: dict[str, int] = defaultdict(int)
        self.answers: list[object] = []
        self.watchers: list[object] = []

    def tell(self, what: str, request_id: str, **more: object) -> None:
        for watcher in self.watchers:
            watcher(what, request_id, **more)

    def play(self, events: int) -> None:
        for _ in range(events):
            self.event()

    def event(self) -> None:
        self.wait(self.rng.choice([0.0, 0.0, 0.5, 0.25, 3.0]))
        actions = (
            [self.submit] * 5 + [self.next] * 6 + [self.progress] * 3 + [self.finish] * 3
            + [self.cancel, self.requeue, self.requeue, self.peek, self.own_choice, self.sweep]
        )  # fmt: skip
        self.rng.choice(actions)()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for queue in self.queues.values():
            for place, request_id in enumerate(queue):
                self.queued_s[request_id] += seconds
                self.head_s[request_id] += seconds if place == 0 else 0.0
        for request_id in self.running:
            self.ran_s[request_id] += seconds

    def submit(self) -> None:
        rng = self.rng
        self.count += 1
        truth = rng.choice([1, 5, 40, rng.randrange(1, 300)])
        most = rng.choice([None, None, truth, truth + 7])
        request = Request(
            "", f"r{self.count}", rng.choice(self.names), prompt_tokens=rng.randrange(1, 200), max_tokens=most
        )
        self.requests[request.id], self.truth[request.id] = request, truth
        self.tell("activate" if not self.queues[request.client] else "queue", request.id)
        self.scheduler.submit(request, self.now, self.forecasts(rng, truth))
        self.queues[request.client].append(request.id)
        self.tell("submit", request.id)

    def capacity(self) -> Capacity:
        """Any, or just what one of the heads needs, or one token less."""
        kv_tokens = self.rng.choice([30, 150, 300, self.pool, 10**6])
        heads = [queue[0] for queue in self.queues.values() if queue]
        if heads and self.rng.random() < 0.4:
            needs = [self.scheduler.reserved_tokens(request_id) for request_id in heads]
            kv_tokens = self.rng.choice([min(needs), min(needs), self.rng.choice(needs)]) - self.rng.choice(
                [0, 0, 1]
            )
        return Capacity(kv_tokens, self.rng.choice([0, 1, 1, 4]))

    def next(self) -> str | None:
        capacity = self.capacity()
        self.tell("ask", "", capacity=capacity)
        request = self.scheduler.next(capacity, self.now)
        self.answers.append(request and request.id)
        if request is None:
            self.tell("none", "", capacity=capacity)
            return None
        self.start(request.id)
        return request.id

    def start(self, request_id: str) -> None:
        self.queues[self.requests[request_id].client].remove(request_id)
        self.running[request_id] = self.served[request_id]
        self.started.add(request_id)
        self.tell("admit", request_id)

    def peek(self) -> None:
        request = self.scheduler.peek(self.capacity(), self.now)
        self.answers.append(request and request.id)
        if request is not None and self.rng.random() < 0.5:
            self.tell("ask", "", capacity=None)
            self.scheduler.admit(request.id, self.now)
            self.start(request.id)

    def own_choice(self) -> None:
        """The engine starts a request of its own choice."""
        waiting = [request_id for queue in self.queues.values() for request_id in queue]
        if waiting and self.rng.random() < 0.3:
            request_id = self.rng.choice(waiting)
            self.tell("choose", request_id)
            self.scheduler.admit(request_id, self.now)
            self.start(request_id)

    def any_running(self) -> str | None:
        return self.rng.choice(sorted(self.running)) if self.running else None

    def progress(self) -> None:
        if (request_id := self.any_running()) is not None:
            made = self.rng.randrange(0, self.truth[request_id] + 1)
            self.scheduler.progress(request_id, made, self.now)
            self.know(request_id, made)

    def know(self, request_id: str, made: int) -> None:
        more = max(made - self.served[request_id], 0)
        self.served[request_id] += more
        self.tell("progress", request_id, more=more)

    def usage(self, request_id: str) -> Usage:
        rng, truth = self.rng, self.truth[request_id]
        return Usage(
            truth,
            prompt_tokens=rng.choice([None, None, 77]),
            latency_s=rng.choice([None, None, 2.5, math.nan]),
            tokens_per_s=rng.choice([None, None, 31.0, math.inf]),
            gpu_util=rng.choice([None, None, 0.25, math.nan, 3.0]),
        )

    def finish(self) -> None:
        late = [i for queue in self.queues.values() for i in queue if i in self.started]
        request_id = self.rng.choice(late) if late and self.rng.random() < 0.2 else self.any_running()
        if request_id is not None:
            self.end(request_id)

    def end(self, request_id: str) -> None:
        usage = self.usage(request_id)
        self.know(request_id, self.truth[request_id])
        self.tell("finish", request_id, usage=usage)
        self.scheduler.finish(request_id, usage, self.now)
        self.leave(request_id, "finished")

    def leave(self, request_id: str, how: str) -> None:
        self.running.pop(request_id, None)
        queue = self.queues[self.requests[request_id].client]
        if request_id in queue:
            queue.remove(request_id)
            if not queue:
                self.tell("emptied", request_id)
        self.over[request_id] = how

    def cancel(self) -> None:
        open_ids = sorted(self.requests.keys() - self.over.keys())
        if open_ids:
            request_id = self.rng.choice(open_ids)
            self.tell("cancel", request_id)
            self.scheduler.cancel(request_id, self.now)
            self.leave(request_id, "cancelled")

    def requeue(self) -> None:
        if (request_id := self.any_running()) is not None:
            queue = self.queues[self.requests[request_id].client]
            self.tell("requeue", request_id)
            self.scheduler.requeue(request_id, self.now)
            del self.running[request_id]
            queue.append(request_id)
            queue.sort(key=lambda one: int(one[1:]))
            self.tell("requeued", request_id)

    def sweep(self) -> None:
        self.scheduler.sweep(self.now)

    def drain(self) -> None:
        """Run everything that is left to its end on a large engine."""
        while any(self.queues.values()) or self.running:
            for request_id in sorted(self.running):
                self.end(request_id)
            self.wait(0.5)
            self.tell("ask", "", capacity=Capacity(10**9, 10**9))
            while (request := self.scheduler.next(Capacity(10**9, 10**9), self.now)) is not None:
                self.start(request.id)
                self.tell("ask", "", capacity=Capacity(10**9, 10**9))
            assert self.running or not any(self.queues.values())


def counters(scheduler: FairScheduler) -> dict[str, tuple[float, float]]:
    """Counters by client, as floats."""
    accounts = scheduler.accounts.by_name.values()
    return {one.name: (one.user / GRAIN, one.resource / GRAIN) for one in accounts}


@pytest.fixture(scope="session")
def play() -> type[Play]:
    """The class of random worlds."""
    return Play
