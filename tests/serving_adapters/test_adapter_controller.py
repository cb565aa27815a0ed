"""The controller: idempotent, never raising, fair; small worlds with exact answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings

STEPS = Settings(policy="vtc", clock="steps")


def busy(**more: Any) -> Controller:
    """Two tenants waiting: a with three requests, b with one that came last."""
    control = Controller(Settings(**{"policy": "vtc:forecast", "clock": "steps", **more}))
    for name in ("a1", "a2", "a3", "b1"):
        assert control.arrive(name, name[0], 10, forecast=20) == name[0]
    return control


def test_turns_alternate_as_tenants_are_charged() -> None:
    control = busy()
    assert control.pick() == "a"
    control.admit("a1")
    assert control.pick() == "b"
    control.admit("b1")
    assert [control.pick(), control.pick({"b"}), control.pick({"a", "b"})] == ["a", None, "a"]


def test_pick_among_passes_those_who_cannot_run() -> None:
    control = busy()
    assert control.pick({"b"}) == "b"
    assert control.pick() == "a"


def test_order_is_what_turns_would_give_and_charges_nothing() -> None:
    control = busy()
    assert control.order(["a1", "ghost", "a2", "a3", "b1"]) == ["a1", "b1", "a2", "a3", "ghost"]
    assert control.score("a") == control.score("b") == 0


def test_put_back_and_preempt_refund_all_of_what_was_not_served() -> None:
    control = busy()
    before = control.score("a")
    control.admit("a1")
    assert control.score("a") > before
    control.put_back("a1")
    assert control.score("a") == before
    control.admit("a1")
    control.preempt("a1")
    control.preempt("a1")
    assert (control.score("a"), control.counts["preempted"], control.counts["put_back"]) == (before, 1, 1)
    assert control.pick({"a"}) == "a"


@pytest.mark.parametrize("call", ["admit", "put_back", "preempt", "abort"])
def test_unknown_ids_are_ignored(call: str) -> None:
    control = busy()
    getattr(control, call)("ghost")
    control.tokens("ghost", 5)
    control.finish("ghost", 5)
    assert not control.failures
    assert control.scheduler.metrics().waiting == 4


def test_a_finish_without_admit_is_charged_like_any_other() -> None:
    told, untold = busy(), busy()
    told.admit("a1")
    for control in (told, untold):
        control.finish("a1", 7)
        control.finish("a1", 9)
    assert told.score("a") == untold.score("a") > 0
    assert told.scheduler.metrics().clients[0].output_tokens == 7


def test_garbage_from_an_engine_is_counted_not_raised() -> None:
    control = busy()
    control.admit("a1")
    control.tokens("a1", -3)
    control.finish("a1", -1)
    assert control.failures == {"tokens": 1, "finish": 1}
    assert "failures_tokens" in control.metrics_text()


class Broken:
    def first(self) -> None:
        raise RuntimeError("broken on purpose")


def test_a_broken_scheduler_gives_no_answer_and_no_error() -> None:
    control = busy()
    control.scheduler.turns = Broken()  # type: ignore[assignment]
    assert control.pick() is None
    control.scheduler.order = control.scheduler.turns.first  # type: ignore[assignment]
    assert control.order(["b1", "a1"]) == ["b1", "a1"]
    assert control.failures == {"pick": 1, "order": 1}


def test_time_by_steps_is_the_same_everywhere() -> None:
    control = Controller(STEPS)
    control.step()
    control.step()
    assert control.now == pytest.approx(2 * STEPS.step_s)


def test_policies_that_refuse_say_so() -> None:
    control = Controller(Settings(policy="rpm:1", clock="steps"))
    assert control.selective
    assert [control.arrive("1", "a", 1), control.arrive("2", "a", 1)] == ["a", ""]
    assert control.counts["refused"] == 1


def test_forecast_numbers_come_with_requests() -> None:
    control = Controller(Settings(policy="vtc:forecast", clock="steps"))
    for place, given_ in enumerate([5, "6", [1, 7, 9], "x" * 40, None, float("nan"), {}, -2]):
        control.arrive(f"r{place}", f"t{place}", 1, forecast=given_)
        control.admit(f"r{place}")
    assert [control.foreseen(f"r{place}") for place in range(3)] == [5, 6, 7]
    assert (control.counts["given"], control.counts["given_garbage"]) == (3, 4)


CALLS = st.sampled_from(
    ["arrive", "admit", "put_back", "preempt", "tokens", "finish", "abort", "step", "advise"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CALLS, st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_no_order_of_calls_ever_fails_or_leaves_a_charge(calls: list[tuple[str, int, int]]) -> None:
    control = Controller(STEPS)
    for call, which, n in calls:
        request_id = f"r{which}"
        if call == "arrive":
            control.arrive(request_id, f"t{which % 2}", n)
        elif call in ("tokens", "finish"):
            getattr(control, call)(request_id, n)
        elif call == "step":
            control.step()
        elif call != "advise":
            getattr(control, call)(request_id)
    for which in range(6):
        control.abort(f"r{which}")
    metrics = control.scheduler.metrics()
    assert not control.failures
    assert (metrics.waiting, metrics.running) == (0, 0)
    assert control.scheduler.growth_tokens == 0
