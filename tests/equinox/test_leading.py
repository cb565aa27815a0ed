"""The leading few of the prospective order: the same as ordering everything, and nothing moves by asking."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.equinox import FairScheduler
from mope.equinox.leading import leading
from mope.types import Capacity, Forecast, Request

NO_SLOT = Capacity(0, 0)
POLICIES = ["equinox", "equinox:resource=work", "vtc:forecast", "vtc:mean", "fcfs", "lcf"]


def world(policy: str, seed: int, events: int, clients: int) -> tuple[FairScheduler, float]:
    """A scheduler after random arrivals, admissions and preemptions, and its time."""
    rng, scheduler, running = random.Random(seed), FairScheduler(policy), list[str]()
    now = 0.0
    for i in range(events):
        now += rng.choice([0.0, 0.5])
        forecast = rng.choice([None, Forecast.of_tokens(rng.randrange(1, 500))])
        request = Request("", f"r{i}", f"c{rng.randrange(clients)}", prompt_tokens=rng.randrange(1, 300))
        scheduler.submit(request, now, forecast)
        if rng.random() < 0.3:
            found = scheduler.next(Capacity(1e9, 9), now)
            assert found is not None
            running.append(found.id)
        if running and rng.random() < 0.1:
            scheduler.requeue(running.pop(), now)
    return scheduler, now


@pytest.mark.parametrize("policy", POLICIES)
@given(
    seed=st.integers(0, 10**6), events=st.integers(0, 60), clients=st.integers(1, 9), count=st.integers(0, 70)
)
def test_it_is_the_beginning_of_the_whole_order(
    policy: str, seed: int, events: int, clients: int, count: int
) -> None:
    scheduler, now = world(policy, seed, events, clients)
    waiting = [name for name, job in scheduler.jobs.items() if not job.running]
    before = scheduler.snapshot()
    found = leading(count, now, scheduler)
    assert scheduler.snapshot() == before
    assert found == scheduler.order(waiting, NO_SLOT, now)[:count]


def test_it_starts_as_next_does() -> None:
    scheduler, now = world("equinox", 3, 80, 5)
    expected = leading(1000, now, scheduler)
    started = []
    while (request := scheduler.next(Capacity(1e9, 9), now)) is not None:
        started.append(request.id)
    assert started == expected


def test_many_clients_leave_the_turns_as_they_were() -> None:
    scheduler, now = world("vtc:forecast", 5, 1500, 700)
    expected = scheduler.order([n for n, job in scheduler.jobs.items() if not job.running], NO_SLOT, now)
    for count in (1, 50, 600, 5000, 3):
        assert leading(count, now, scheduler) == expected[:count]
