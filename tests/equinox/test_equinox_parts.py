"""The parts one by one: turns, lifts, advice, admission, order, tags, accounts."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.equinox import AdmissionConfig, FairScheduler, Priors, prefill_budget, step_budget
from mope.equinox.lifts import _joined, _through
from mope.equinox.state import Account, Job
from mope.equinox.turns import Turns
from mope.errors import BadInput, ConfigError
from mope.types import Capacity, Forecast, LengthForecast, Request, Usage

SCALE = float(os.environ.get("MOPE_WORLDS", "1"))
seeds = st.integers(0, 2**32)
ROOM = Capacity(1e9, 10**6)


@settings(max_examples=int(15 * SCALE))
@given(seeds, st.sampled_from([3, 600, 5000]), st.sampled_from([1, 10, 2**40, 2**190]), st.booleans())
def test_turns_are_those_of_a_sorted_list(seed, clients, scale, tied):
    """In any regime, of heap and of buckets, with keys that rise, fall, leave and come back."""
    rng, turns = random.Random(seed), Turns()
    accounts = [Account(f"c{i}", 1.0) for i in range(clients)]
    number = 0

    def enter(account: Account) -> None:
        nonlocal number
        number += 1
        account.head = Job(Request("", "x"), account, number, 0, 0.0)
        account.score = (0 if tied else rng.randrange(clients)) * scale
        turns.active += 1
        rescore(account)

    def rescore(account: Account) -> None:
        entry = account.entry
        if entry is None or (account.score, account.head.number) < entry[:2]:
            turns.push(account)

    for account in accounts:
        enter(account)
    for step in range(2 * clients + 50):
        account = turns.first()
        if step % max(clients // 8, 1) == 0:
            waiting = [one for one in accounts if one.head is not None]
            keys = sorted((one.score, one.head.number) for one in waiting)
            walk = turns.in_order()
            walked = [(one.score, one.head.number) for one, _ in zip(walk, range(40), strict=False)]
            walk.close()
            assert walked == keys[:40]
            assert {id(one) for one in turns.accounts()} == {id(one) for one in waiting}
            assert turns.first() is account
        if account is None or rng.random() < 0.1:
            away = [one for one in rng.sample(accounts, min(5, clients)) if one.head is None]
            for one in away:
                enter(one)
            continue
        kind = rng.random()
        if kind < 0.1:
            account.head = None
            turns.active -= 1
        elif kind < 0.8:
            account.score += rng.randrange(1, clients) * scale
            number += 1
            account.head = Job(Request("", "x"), account, number, 0, 0.0)
        other = rng.choice(accounts)
        if other.head is not None and rng.random() < 0.1:  # it cancels and is away
            other.head = None
            turns.active -= 1
        elif other.head is not None:  # a refund
            other.score -= rng.randrange(0, clients) * scale // 2
            rescore(other)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=8), *[st.integers(-20, 20)] * 3)
def test_two_rooms_joined_let_through_what_the_two_do(changes, first, second, start):
    del start
    joined = _joined(first, second)
    for change in changes:
        passed, first = _through(first, change)
        passed, second = _through(second, passed)
        at_once, joined = _through(joined, change)
        assert passed == at_once


def length(tokens: float, levels=(0.1, 0.5, 0.9), quantiles=None) -> Forecast:
    quantiles = (tokens / 2, tokens, 2 * tokens) if quantiles is None else quantiles
    return Forecast(LengthForecast(tokens, quantiles[0], quantiles[-1], levels, quantiles, "", (0, 0, 0)))


@pytest.mark.parametrize(
    ("forecast", "max_tokens", "quantile", "reserved"),
    [
        (length(40.0), None, 0.9, 10 + 80),
        (length(40.0), None, 0.5, 10 + 40),
        (length(40.0), None, 0.6, 10 + 80),  # the first level from the quantile up
        (length(40.0), None, 1.0, 10 + 80),  # beyond the last level
        (length(40.0), 50, 0.9, 10 + 50),
        (length(40.0), 30, 0.9, 10 + 30),
        (length(40.0, (), (40.0,)), None, 0.9, 10 + 60),  # no quantiles: 1.5 times
        (length(40.0, (0.9,), (7.0,)), None, 0.9, 10 + 40),  # never below the median
        (length(40.4, (0.9,), (50.1,)), None, 0.9, 10 + 51),
        (length(0.0), None, 0.9, 10 + 1),
        (None, None, 0.9, 10 + 384),  # 1.5 times the prior of 256
    ],
)
def test_memory_is_kept_for_a_quantile_of_the_length(forecast, max_tokens, quantile, reserved):
    scheduler = FairScheduler("vtc", priors=Priors(quantile=quantile))
    scheduler.submit(Request("", "a", "a", prompt_tokens=10, max_tokens=max_tokens), 0.0, forecast)
    assert scheduler.reserved_tokens("a") == reserved
    scheduler.submit(Request("", "b", "a", prompt_tokens=10, max_tokens=max_tokens), 0.0, forecast)
    assert scheduler.reserved_tokens("b") == reserved  # not the head


def test_a_reservation_that_is_outrun_is_estimated_anew():
    scheduler = FairScheduler("vtc")
    scheduler.submit(Request("", "a", "a", prompt_tokens=10, max_tokens=200), 0.0, Forecast.of_tokens(20))
    scheduler.next(ROOM, 0.0)
    seen = []
    for made in (5, 19, 20, 25, 30, 150, 200):
        scheduler.progress("a", made, 1.0)
        seen.append((scheduler.reserved_tokens("a"), scheduler.growth_tokens))
    assert seen == [(30, 15), (30, 1), (40, 10), (40, 5), (55, 15), (210, 50), (210, 0)]
    scheduler.requeue("a", 2.0)
    assert (scheduler.reserved_tokens("a"), scheduler.growth_tokens) == (211, 0)


def test_the_chain_without_a_forecast_is_mean_then_prior():
    scheduler = FairScheduler("equinox:delta=0,k_out=1")
    charged = []
    for i in range(3):
        scheduler.submit(Request("", f"a{i}", "a", prompt_tokens=0), float(i))
        before = scheduler.metrics().clients[0].user_counter
        scheduler.next(ROOM, float(i))
        charged.append(scheduler.metrics().clients[0].user_counter - before)
        scheduler.finish(f"a{i}", Usage(100 * (i + 1)), float(i))
    assert charged == [256, 100, 120]
    client = scheduler.metrics().clients[0]
    assert (client.fallbacks, client.admitted) == (3, 3)
    assert client.error_tokens == 156 + 100 + 180


def test_a_forecast_may_come_late_but_not_too_late():
    scheduler = FairScheduler("vtc:forecast")
    scheduler.submit(Request("", "a", "a", prompt_tokens=1), 0.0)
    assert scheduler.advise("a", Forecast.of_tokens(7), 0.5)
    assert scheduler.reserved_tokens("a") == 8
    scheduler.next(ROOM, 1.0)
    assert scheduler.metrics().clients[0].user_counter == 15
    assert not scheduler.advise("a", Forecast.of_tokens(9), 1.0)
    assert scheduler.metrics().clients[0].fallbacks == 0


def test_prompt_tokens_are_the_requests_the_forecasts_or_an_estimate():
    scheduler = FairScheduler("vtc")
    scheduler.submit(Request("x" * 40, "a", "a"), 0.0)
    scheduler.submit(Request("x" * 40, "b", "a"), 0.0, Forecast(length(5.0).length, prompt_tokens=33))
    scheduler.submit(Request("x" * 40, "c", "a", prompt_tokens=3), 0.0)
    assert [scheduler.jobs[i].prompt_tokens for i in "abc"] == [10, 33, 3]


@settings(max_examples=int(150 * SCALE))
@given(
    seeds, st.integers(1, 60), st.sampled_from(["fcfs", "vtc:forecast", "equinox", "equinox:latency=arrival"])
)
def test_an_order_is_what_next_would_do_and_leaves_no_trace(play, seed, events, policy):
    limit = AdmissionConfig(bypass_limit=seed % 3, bypass_s=1e9)
    world = play(FairScheduler(policy, admission=limit), seed, clients=8)
    world.play(events)
    for _ in range(8):
        world.submit()
    scheduler = world.scheduler
    waiting = [request_id for queue in world.queues.values() for request_id in queue]
    world.rng.shuffle(waiting)
    room = Capacity(world.rng.choice([100, 150, 200, 300, 900, 10**6]), world.rng.choice([0, 1, 4, 99, 99]))
    scheduler.order([], room, world.now)  # so that time has come as far
    before = scheduler.snapshot()
    order = scheduler.order(waiting, room, world.now)
    assert scheduler.snapshot() == before
    assert sorted(order) == sorted(waiting)
    started = []
    scheduler.pin = None
    while (request := scheduler.next(room, world.now)) is not None:
        started.append(request.id)
        room = Capacity(room.kv_tokens - scheduler.reserved_tokens(request.id), room.slots - 1)
    assert order[: len(started)] == started
    assert order[len(started) :] == scheduler.order(order[len(started) :], ROOM, world.now)


def test_tags_are_start_times_of_fair_queueing():
    """Charges of 10, 10, 4, 4: starts at 0 and 10 for a, 0 and 4 for b; what was admitted is virtual time."""
    scheduler = FairScheduler("vtc:forecast")

    def tag(request_id: str, prompt_tokens: int) -> float:
        request = Request("", request_id, request_id[0], prompt_tokens=prompt_tokens)
        return scheduler.tag(request, 0.0, Forecast.of_tokens(0)) / 1024

    assert [tag("a1", 10), tag("a2", 10), tag("b1", 4), tag("b2", 4)] == [0, 10, 0, 4]
    assert [tag("a2", 10), tag("b2", 4)] == [10, 4]  # a tag never changes
    assert [scheduler.next(ROOM, 0.0).id for _ in range(3)] == ["a1", "b1", "b2"]
    assert tag("c1", 1) == 10  # lifted to the smallest active score, a's
    assert scheduler.metrics().clients[0].user_counter == 10  # charged once, by its admission


def test_tags_of_every_policy_are_integers_in_53_bits():
    for policy in ("fcfs", "rpm:9", "vtc", "lcf", "equinox"):
        scheduler = FairScheduler(policy)
        for i in range(3):
            request = Request("", f"a{i}", "a", prompt_tokens=2**20)
            tag = scheduler.tag(request, 0.0, Forecast.of_tokens(1e5))
            assert isinstance(tag, int)
            assert 0 <= tag < 2**53
        assert len(scheduler.jobs) == 3


def test_step_tokens_hold_a_whole_prompt_unless_it_is_chunked():
    for chunked, step_tokens, fits in (
        (True, 1, True),
        (True, 0, False),
        (False, 9, False),
        (False, 10, True),
    ):
        scheduler = FairScheduler("vtc", admission=AdmissionConfig(chunked=chunked))
        scheduler.submit(Request("", "a", "a", prompt_tokens=10), 0.0)
        assert (scheduler.peek(Capacity(1e9, 1, step_tokens), 0.0) is not None) is fits


@given(
    st.integers(0, 10**6),
    st.floats(1e-6, 1e-2),
    st.floats(1e-7, 1e-3),
    st.integers(1, 100),
    st.integers(0, 9000),
)
def test_the_step_budget_is_the_largest_within_the_target(target_us, base, slope, least, more):
    tpot_s, most = max(target_us, 1) * 1e-6, least + more
    budget = step_budget(lambda tokens: base + slope * tokens, tpot_s, least=least, most=most)
    within = [n for n in (budget, budget + 1) if least <= n <= most and base + slope * n <= tpot_s]
    assert within == [budget] or (budget == least and not within)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_a_step_budget_needs_a_target_and_times(wrong):
    with pytest.raises(BadInput):
        step_budget(lambda tokens: 0.1, wrong)
    if wrong:
        with pytest.raises(BadInput):
            step_budget(lambda tokens: wrong, 0.1)
    with pytest.raises(BadInput):
        step_budget(lambda tokens: 0.1, 0.1, least=9, most=3)


def test_decodes_come_before_prefills():
    assert [prefill_budget(256, decoding) for decoding in (0, 100, 256, 300)] == [256, 156, 0, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdmissionConfig(bypass_limit=-1),
        lambda: AdmissionConfig(bypass_s=float("nan")),
        lambda: AdmissionConfig(outrun=1.0),
        lambda: Priors(tokens=-1.0),
        lambda: Priors(gpu_util=1.5),
        lambda: Priors(tpot_s=0.0),
        lambda: Priors(spare=0.5),
        lambda: Priors(keep=1.0),
        lambda: Priors(ttft_s=float("inf")),
    ],
)
def test_config_is_checked_once(make):
    with pytest.raises(ConfigError):
        make()


def test_idle_clients_are_dropped_once_a_lift_would_erase_them():
    scheduler = FairScheduler("equinox")
    for i in range(20_000):
        scheduler.submit(Request("", f"r{i}", f"c{i}", prompt_tokens=10), float(i), Forecast.of_tokens(20))
        scheduler.next(ROOM, float(i))
        scheduler.finish(f"r{i}", Usage(20), i + 0.5)
    assert len(scheduler.accounts.by_name) <= 129
    scheduler.sweep(20_000.0)
    assert not scheduler.accounts.by_name
    assert scheduler.metrics().dropped == 20_000
    scheduler.submit(Request("", "again", "c7", prompt_tokens=10), 20_000.0)
    assert scheduler.metrics().clients[0].user_counter > 20_000 * 80  # lifted to the last that left


def test_a_client_that_owes_is_kept_until_the_others_have_caught_up():
    scheduler = FairScheduler("vtc:forecast")

    def serve(request_id: str, prompt_tokens: int) -> None:
        request = Request("", request_id, request_id[0], prompt_tokens=prompt_tokens)
        scheduler.submit(request, 0.0, Forecast.of_tokens(0))

    serve("a1", 5), serve("a2", 5), serve("a3", 1), serve("b1", 100)
    assert [scheduler.next(ROOM, 0.0).id for _ in range(3)] == ["a1", "b1", "a2"]
    for request_id in ("a1", "a2", "b1"):
        scheduler.finish(request_id, Usage(0), 1.0)
    scheduler.sweep(1.0)
    assert scheduler.accounts.by_name.keys() == {"a", "b"}  # b owes 90
    serve("a4", 200)
    assert [scheduler.next(ROOM, 2.0).id for _ in range(2)] == ["a3", "a4"]
    scheduler.sweep(2.0)
    assert "b" in scheduler.accounts.by_name  # a's charge of 200 may still be refunded
    scheduler.finish("a4", Usage(0), 3.0)
    scheduler.sweep(3.0)
    assert scheduler.accounts.by_name.keys() == {"a"}


@settings(max_examples=int(150 * SCALE))
@given(seeds, st.integers(1, 120), st.sampled_from(["fcfs", "vtc", "vtc:forecast", "equinox"]))
def test_dropping_changes_no_answer(play, seed, events, policy):
    answers = []
    for drops in (False, True):
        world = play(FairScheduler(policy), seed, clients=12, forecasts=sure)
        sweep, world.sweep = world.sweep, lambda: None
        for _ in range(events):
            world.event()
            if drops:
                sweep()
        answers.append(world.answers)
    assert answers[0] == answers[1]


def sure(rng: random.Random, truth: int) -> Forecast:
    """Always a length: what is dropped with a client is its mean."""
    return Forecast.of_tokens(truth * rng.choice([0.1, 1.0, 10.0]))
