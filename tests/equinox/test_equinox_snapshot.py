"""A restored scheduler goes on as if it had never stopped; bad input is refused or clamped and changes nothing."""

from __future__ import annotations

import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.equinox import AdmissionConfig, FairScheduler, Priors
from mope.errors import BadInput, ConfigError
from mope.types import Capacity, Forecast, History, LengthForecast, Request, Span, Usage

SCALE = float(os.environ.get("MOPE_WORLDS", "1"))
worlds = settings(max_examples=int(200 * SCALE))
seeds = st.integers(0, 2**32)
POLICIES = ["fcfs", "rpm:3", "vtc", "vtc:mean", "vtc:forecast", "lcf", "equinox", "equinox:latency=arrival"]
ROOM = Capacity(1e9, 9)


def saved(scheduler: FairScheduler) -> FairScheduler:
    """Through JSON text and back."""
    return type(scheduler).restore(json.loads(json.dumps(scheduler.snapshot(), allow_nan=False)))


@worlds
@given(seeds, st.integers(1, 60), st.integers(1, 60), st.sampled_from(POLICIES))
def test_stopped_and_restored_is_never_stopped(play, seed, before, after, policy):
    both = []
    for stops in (False, True):
        config = AdmissionConfig(bypass_limit=2, bypass_s=4.0)
        world = play(FairScheduler(policy, admission=config, weights={"c1": 2.0}, groups={"c2": "c3"}), seed)
        lenient(world)
        world.play(before)
        if stops:
            world.scheduler = saved(world.scheduler)
        world.play(after)
        if stops:
            assert saved(world.scheduler).snapshot() == world.scheduler.snapshot()
        both.append((world.answers, world.scheduler.snapshot()))
    assert both[0] == both[1]


def lenient(world) -> None:
    """Refused requests are part of the game; groups keep one queue, so answers alone are compared."""
    from mope.equinox import Refused

    submit = world.submit

    def maybe() -> None:
        try:
            submit()
        except Refused:
            request_id = f"r{world.count}"
            del world.requests[request_id], world.truth[request_id]

    world.submit = maybe


def test_a_snapshot_keeps_the_whole_request():
    scheduler = FairScheduler("vtc")
    history = History(turn=2, prompts=("a", "b"), lengths=(3, 4), answer_tail="...", tokens=9)
    request = Request("hello", "r", "c", history, 5, 70, "llama", 1.5)
    scheduler.submit(request, 0.0)
    assert saved(scheduler).next(ROOM, 0.0) == request


def test_a_policy_of_ones_own_is_given_to_restore():
    scheduler = FairScheduler("fcfs")
    snapshot = scheduler.snapshot()
    snapshot["policy"]["name"] = "mine"
    with pytest.raises(ConfigError, match="policy 'mine'"):
        FairScheduler.restore(snapshot)
    assert FairScheduler.restore(snapshot, policy=scheduler.policy).policy is scheduler.policy


@pytest.mark.parametrize("key", sorted(FairScheduler("fcfs").snapshot()))
def test_a_snapshot_that_is_not_whole_is_refused(key):
    snapshot = FairScheduler("fcfs").snapshot()
    del snapshot[key]
    with pytest.raises(BadInput, match="snapshot"):
        FairScheduler.restore(snapshot)
    with pytest.raises(BadInput, match="snapshot"):
        FairScheduler.restore({**FairScheduler("fcfs").snapshot(), key: "nonsense"})


def one(
    forecast: Forecast | None = None, max_tokens: int | None = None, weight: float = 1.0
) -> FairScheduler:
    scheduler = FairScheduler("equinox", weights={"a": weight})
    scheduler.submit(Request("", "a1", "a", prompt_tokens=10, max_tokens=max_tokens), 1.0, forecast)
    return scheduler


def state(scheduler: FairScheduler) -> str:
    return json.dumps({**scheduler.snapshot(), "now": None})


BAD_CALLS = {
    "the same id": lambda s: s.submit(Request("", "a1", "b"), 1.0),
    "no id": lambda s: s.submit(Request("", "", "b"), 1.0),
    "an id that is no word": lambda s: s.submit(Request("", 7, "b"), 1.0),
    "a client that is no word": lambda s: s.submit(Request("", "x", None), 1.0),
    "negative prompt": lambda s: s.submit(Request("", "x", "b", prompt_tokens=-1), 1.0),
    "NaN prompt": lambda s: s.submit(Request("", "x", "b", prompt_tokens=math.nan), 1.0),
    "endless prompt": lambda s: s.submit(Request("", "x", "b", prompt_tokens=2**40), 1.0),
    "negative max_tokens": lambda s: s.submit(Request("", "x", "b", max_tokens=-2), 1.0),
    "NaN time": lambda s: s.submit(Request("", "x", "b"), math.nan),
    "the end of time": lambda s: s.next(ROOM, math.inf),
    "finish before admit": lambda s: s.finish("a1", Usage(3), 1.0),
    "unknown admit": lambda s: s.admit("x", 1.0),
    "unknown finish": lambda s: s.finish("x", Usage(3), 1.0),
    "unknown cancel": lambda s: s.cancel("x", 1.0),
    "unknown requeue": lambda s: s.requeue("x", 1.0),
    "unknown progress": lambda s: s.progress("x", 3, 1.0),
    "unknown order": lambda s: s.order(["a1", "x"], ROOM, 1.0),
    "unknown advice": lambda s: s.advise("x", Forecast.of_tokens(3), 1.0),
    "unknown reservation": lambda s: s.reserved_tokens("x"),
    "negative output": lambda s: s.finish("a1", Usage(-1), 1.0),
    "NaN output": lambda s: s.finish("a1", Usage(math.nan), 1.0),
    "negative progress": lambda s: s.progress("a1", -1, 1.0),
    "negative usage prompt": lambda s: s.finish("a1", Usage(1, prompt_tokens=-1), 1.0),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_are_refused_before_anything_changes(name):
    scheduler = one()
    before = state(scheduler)
    with pytest.raises(BadInput):
        BAD_CALLS[name](scheduler)
    assert state(scheduler) == before


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf, 1e-9, 1e9])
def test_weights_are_numbers_within_bounds(weight):
    with pytest.raises(ConfigError, match="weight"):
        FairScheduler("vtc", weights={"a": weight})
    scheduler = one()
    with pytest.raises(ConfigError, match="weight"):
        scheduler.set_weight("a", weight)
    assert scheduler.accounts.by_name["a"].weight == 1.0


def test_a_new_weight_counts_from_the_next_charge():
    scheduler = FairScheduler("vtc:forecast", weights={"a": 1.0})
    scheduler.submit(Request("", "a1", "a", prompt_tokens=8), 0.0, Forecast.of_tokens(1))
    scheduler.next(ROOM, 0.0)
    scheduler.set_weight("a", 2.0)
    scheduler.finish("a1", Usage(1), 1.0)
    assert scheduler.metrics().clients[0].user_counter == 5.0
    assert (scheduler.metrics().clients[0].weight, scheduler.snapshot()["weights"]) == (2.0, {"a": 2.0})


def test_time_that_goes_backwards_stands_still():
    scheduler = one()
    scheduler.next(ROOM, 5.0)
    scheduler.finish("a1", Usage(3), 2.0)
    assert scheduler.now == 5.0
    assert scheduler.metrics().clients[0].waited_max_s == 4.0


@pytest.mark.parametrize(
    ("tokens", "max_tokens", "believed"),
    [
        *[(broken, None, 256) for broken in (math.nan, math.inf, -math.inf, -1.0)],  # the prior
        *[(broken, 50, 50) for broken in (math.nan, math.inf, -math.inf, -1.0)],
        (1e300, 50, 50),
        (1e300, None, 131_072),
    ],
)
def test_no_forecast_of_a_length_can_ruin_a_counter(tokens, max_tokens, believed):
    scheduler = one(Forecast.of_tokens(tokens), max_tokens)
    account = scheduler.accounts.by_name["a"]
    scheduler.next(ROOM, 1.0)
    assert account.user == int((10 + 4 * believed) / (1 + 0.1 * (0.2 + 0.03 * believed)) * 2**64)
    assert scheduler.reserved_tokens("a1") == 10 + (384 if believed == 256 else believed)
    scheduler.finish("a1", Usage(5), 2.0)
    assert account.user == int((10 + 4 * 5) / (1 + 0.1 * 1.0) * 2**64)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_no_other_number_of_a_forecast_or_a_usage_can_either(wrong):
    span = Span(wrong, wrong, wrong)
    length = LengthForecast(5.0, 5.0, 5.0, (0.5,), (wrong,), "", (0, 0, 0))
    forecast = Forecast(length, wrong, "", True, wrong, span, span, span, gpu_util=wrong)
    scheduler = one(forecast)
    clean = one(Forecast.of_tokens(5.0))
    clean.next(ROOM, 1.0), scheduler.next(ROOM, 1.0)
    assert counters(scheduler) == counters(clean)
    assert scheduler.reserved_tokens("a1") == 10 + 8  # 1.5 times 5, rounded up
    scheduler.finish("a1", Usage(5, None, wrong, wrong, wrong, wrong), 2.0)
    clean.finish("a1", Usage(5), 2.0)
    assert counters(scheduler) == counters(clean)


def counters(scheduler: FairScheduler) -> tuple[int, int]:
    account = scheduler.accounts.by_name["a"]
    return account.user, account.resource


def test_output_beyond_max_tokens_is_not_charged():
    for tokens in (50, 10**9):
        scheduler = one(Forecast.of_tokens(10), max_tokens=50)
        scheduler.next(ROOM, 1.0)
        scheduler.progress("a1", tokens, 2.0)
        scheduler.finish("a1", Usage(tokens), 2.0)
        assert scheduler.accounts.by_name["a"].user == int((10 + 4 * 50) / 1.1 * 2**64)
        assert scheduler.metrics().clients[0].output_tokens == 50


def test_output_without_max_tokens_is_clamped_to_the_longest():
    scheduler = FairScheduler("vtc", priors=Priors(longest=100))
    scheduler.submit(Request("", "a1", "a", prompt_tokens=10), 1.0)
    scheduler.next(ROOM, 1.0)
    scheduler.finish("a1", Usage(10**6), 2.0)
    assert scheduler.metrics().clients[0].user_counter == 210


def test_calls_that_come_twice_change_nothing():
    scheduler = one()
    scheduler.admit("a1", 1.0)
    running = state(scheduler)
    scheduler.admit("a1", 1.0)
    assert state(scheduler) == running
    scheduler.requeue("a1", 1.0)
    waiting = state(scheduler)
    scheduler.requeue("a1", 1.0)
    scheduler.progress("a1", 9, 1.0)  # late: of the run that was preempted
    assert state(scheduler) == waiting
    scheduler.cancel("a1", 1.0)
    over = state(scheduler)
    scheduler.cancel("a1", 1.0), scheduler.finish("a1", Usage(3), 1.0), scheduler.requeue("a1", 1.0)
    scheduler.admit("a1", 1.0), scheduler.progress("a1", 9, 1.0)
    assert not scheduler.advise("a1", Forecast.of_tokens(3), 1.0)
    assert scheduler.reserved_tokens("a1") == 0
    assert state(scheduler) == over
    scheduler.submit(Request("", "a1", "a"), 1.0)  # the id may be used again
    assert scheduler.next(ROOM, 1.0).id == "a1"


def test_an_id_is_forgotten_in_the_end():
    scheduler = FairScheduler("fcfs")
    for i in range(9000):
        scheduler.submit(Request("", f"a{i}", "a"), 0.0)
        scheduler.cancel(f"a{i}", 0.0)
    scheduler.cancel("a8999", 0.0)
    with pytest.raises(BadInput, match="not known"):
        scheduler.cancel("a0", 0.0)
    assert len(scheduler.closed.ids()) == 1024
