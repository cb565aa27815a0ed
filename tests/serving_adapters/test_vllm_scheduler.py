"""The vLLM adapter on a double of vLLM: exact steps, nothing lost, counters settled, whatever the engine does."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.errors import ConfigError
from mope.serving_adapters.forecasts import Advice
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.vllm_adapter import FairMixin, fair_class

_spec = importlib.util.spec_from_file_location("vllm_double", Path(__file__).with_name("vllm_double.py"))
assert _spec is not None
assert _spec.loader is not None
double = sys.modules["vllm_double"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(double)
Request, Scheduler, Status = double.Request, double.Scheduler, double.RequestStatus


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    double.install(monkeypatch)


def fair(setting: Settings | None = None, **more: Any) -> Any:
    """The fair scheduler over the double."""
    made = fair_class(Scheduler)(**more)
    made.be_fair(setting or Settings(policy="vtc:forecast", clock="steps"))
    return made


def settled(scheduler: Any) -> bool:
    """Whether nothing is open any more, anywhere."""
    ledger = scheduler.ledger
    metrics = ledger.controller.scheduler.metrics()
    assert not ledger.controller.failures
    return not (
        ledger.open
        or ledger.running
        or ledger.held
        or len(scheduler.waiting)
        or metrics.waiting
        or metrics.running
    )


def crowd() -> list[Any]:
    return [Request(f"h{n}", "heavy", length=8) for n in range(40)] + [
        Request(f"l{n}", "light", length=8) for n in range(8)
    ]


def mean(ended: dict[str, int], letter: str) -> float:
    steps = [step for name, step in ended.items() if name[0] == letter]
    return sum(steps) / len(steps)


def test_the_light_tenant_does_not_wait_for_the_heavy_one() -> None:
    stock, ours = Scheduler(seats=4), fair(seats=4)
    before, after = double.run(stock, crowd()), double.run(ours, crowd())
    assert len(after) == len(before) == 48
    assert max(after.values()) == max(before.values())
    assert mean(after, "l") <= 0.28 * mean(before, "l")
    assert settled(ours)


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_with_one_tenant_it_is_the_stock_scheduler(policy: str, data: st.DataObject) -> None:
    shapes = data.draw(
        st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2)), min_size=1)
    )
    room = data.draw(st.integers(20, 60))
    with pytest.MonkeyPatch.context() as patch:
        double.install(patch)
        ended = [
            double.run(
                make(room=room, seats=3, policy=policy),
                [Request(f"r{n}", None, a, b, priority=p) for n, (a, b, p) in enumerate(shapes)],
            )
            for make in (Scheduler, fair)
        ]
    assert ended[0] == ended[1]


def test_slots_freed_in_one_step_are_shared_between_tenants() -> None:
    scheduler = fair(seats=4)
    for request in [Request(f"a{n}", "a", forecast=4) for n in range(4)]:
        scheduler.add_request(request)
    for request in [Request(f"b{n}", "b", forecast=4) for n in range(4)]:
        scheduler.add_request(request)
    scheduler.schedule()
    assert sorted(one.request_id for one in scheduler.running) == ["a0", "a1", "b0", "b1"]


def test_a_blocked_request_is_not_charged_and_keeps_its_place() -> None:
    scheduler = fair(seats=2)
    grammar = Request("a0", "a")
    grammar.status = Status.BLOCKED
    for request in (grammar, Request("a1", "a"), Request("b0", "b")):
        scheduler.add_request(request)
    scheduler.step()
    controller = scheduler.ledger.controller
    assert [one.request_id for one in scheduler.running] == ["a1", "b0"] or [
        one.request_id for one in scheduler.running
    ] == ["b0", "a1"]
    assert controller.score("a") == controller.score("b")
    assert controller.counts["preempted"] == 0
    grammar.status = Status.WAITING
    for _ in range(30):
        scheduler.step()
    assert settled(scheduler)


def test_a_preempted_request_returns_first_of_its_tenant_and_is_charged_once() -> None:
    scheduler = fair(room=22, seats=2)
    ended = double.run(scheduler, [Request(f"a{n}", "a", prompt=4, length=9) for n in range(3)])
    controller = scheduler.ledger.controller
    assert controller.counts["preempted"] > 0
    assert sorted(ended, key=lambda name: ended[name]) == ["a0", "a1", "a2"]
    assert settled(scheduler)
    assert controller.scheduler.metrics().clients[0].user_counter == 3 * (4 + 2 * 9)


def victims(setting: Settings) -> list[str]:
    """Tenants preempted by a tiny cache, `a` having been served much before."""
    scheduler = fair(setting, room=10**6, seats=2, policy="priority")
    double.run(scheduler, [Request("a-before", "a", length=50), Request("b-before", "b", length=1)])
    scheduler.room, lost = 22, []
    scheduler._preempt = lambda: (lost.append(_victim(scheduler)), Scheduler._preempt(scheduler))
    double.run(scheduler, [Request("a1", "a", length=9), Request("b1", "b", length=9)])
    assert settled(scheduler)
    return lost


def _victim(scheduler: Any) -> str:
    name: str = max(scheduler.running, key=lambda one: (one.priority, one.arrival_time)).request_id
    return name[0]


def test_the_victim_is_of_who_was_served_most_where_the_policy_allows_it() -> None:
    common = {"policy": "vtc:forecast", "clock": "steps"}
    assert set(victims(Settings(**common))) == {"a"}
    assert set(victims(Settings(**common, victim="native"))) == {"b"}  # the last that came


def test_ranks_never_reach_a_queue_or_cross_priorities() -> None:
    scheduler = fair(seats=3, room=10**6, policy="priority")
    requests = [Request("a0", "a", priority=5), Request("b0", "b", priority=-3), Request("c0", "c")]
    for request in requests:
        scheduler.add_request(request)
    scheduler.step()
    scheduler.step()
    ordered = sorted(scheduler.running, key=lambda one: one.priority)
    assert [one.request_id for one in ordered] == ["b0", "c0", "a0"]
    scheduler._preempt()
    assert [one.priority for one in scheduler.waiting] == [5]


def test_a_priority_that_somebody_changes_on_the_way_counts_from_then_on() -> None:
    scheduler = fair(seats=2, room=10**6, policy="priority")
    for request in (Request("a0", "a", priority=5, length=9), Request("b0", "b", length=9)):
        scheduler.add_request(request)
    scheduler.step()
    first, second = sorted(scheduler.running, key=lambda one: one.priority)
    assert (first.request_id, second.request_id) == ("b0", "a0")
    first.priority = 7
    scheduler.step()
    assert first.priority > second.priority
    scheduler._preempt()
    assert [(one.request_id, one.priority) for one in scheduler.waiting] == [("b0", 7)]


def test_aborting_half_of_them_leaves_nothing_behind() -> None:
    scheduler = fair(seats=4)
    for request in crowd():
        scheduler.add_request(request)
    for _ in range(5):
        scheduler.step()
    scheduler.finish_requests(
        [name for n, name in enumerate(list(scheduler.requests)) if n % 2], Status.FINISHED_ABORTED
    )
    while scheduler.requests:
        scheduler.step()
    scheduler.schedule()
    assert settled(scheduler)
    one = scheduler.ledger.controller.scheduler.metrics()
    assert sum(c.cancelled for c in one.clients) + sum(c.finished for c in one.clients) == 48


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "step", "abort", "block", "free"]), st.integers(0, 11), st.integers(1, 9)
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, policy=st.sampled_from(["fcfs", "priority"]), word=st.sampled_from(["equinox", "vtc"]))
def test_whatever_happens_nothing_is_lost_or_run_twice(events: Any, policy: str, word: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        double.install(patch)
        scheduler = fair(Settings(policy=word, clock="steps"), room=40, seats=3, policy=policy)
    added: dict[str, Any] = {}
    gone: list[str] = []
    for number, (event, which, n) in enumerate(events):
        live = list(scheduler.requests.values())
        one = live[which % len(live)] if live else None
        if event == "add":
            request = added[f"r{number}"] = Request(f"r{number}", f"t{which % 4}", n, n, priority=which % 2)
            scheduler.add_request(request)
        elif event == "step":
            gone += scheduler.step()
        elif one is not None and event == "abort":
            scheduler.finish_requests([one.request_id], Status.FINISHED_ABORTED)
            gone.append(one.request_id)
        elif one is not None and one.status in (Status.WAITING, Status.BLOCKED):
            one.status = Status.BLOCKED if event == "block" else Status.WAITING
        assert (
            len(scheduler.waiting)
            == len(list(scheduler.waiting))
            == len(added)
            - len([x for x in added.values() if x.status > Status.PREEMPTED])
            - len(scheduler.running)
        )
    for request in scheduler.requests.values():
        if request.status is Status.BLOCKED:
            request.status = Status.WAITING
    while scheduler.requests:
        gone += scheduler.step()
    scheduler.schedule()
    assert set(gone) == set(added)
    assert settled(scheduler)


def hangs(_: Any) -> Any:
    time.sleep(60)


def raises(_: Any) -> Any:
    raise OSError("predictor is gone")


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        (raises, "failed"),
        (hangs, "late"),
        (lambda asked: ["x"] * len(asked), "garbage"),
        (lambda _: 3, "failed"),
    ],
)
def test_a_bad_predictor_never_stops_serving(source: Callable[..., Any], outcome: str) -> None:
    stock, ours = Scheduler(seats=4), fair(seats=4)
    ours.ledger.controller.advice = advice = Advice(source, deadline_ms=1.0 if source is hangs else 60_000.0)
    ended = double.run(ours, crowd())
    assert max(ended.values()) == max(double.run(stock, crowd()).values())
    for _ in range(500):
        ours.ledger.controller.step()
        if advice.counts[outcome] == 48:
            break
        time.sleep(0.02)
    advice.close()
    assert advice.counts == {"asked": 48, outcome: 48}
    assert sum(one.fallbacks for one in ours.ledger.controller.scheduler.metrics().clients) == 48


def test_tenants_come_from_the_first_carrier_that_names_one() -> None:
    def names(*carriers: str) -> list[str]:
        scheduler = fair(Settings(clock="steps", tenant_from=carriers))
        requests = [
            Request("x", "xa", salt="sa", lora="lo"), Request("s", salt="sa", lora="lo"), Request("l", lora="lo"),
            Request("d"),
        ]  # fmt: skip
        for request in requests:
            scheduler.add_request(request)
        return [scheduler.ledger.tenant(request) for request in requests]

    assert names() == ["xa", "sa", "lo", "default"]
    assert names("lora", "xargs:tenant") == ["lo", "lo", "lo", "default"]
    with pytest.raises(ConfigError, match="user"):
        names("user")


def test_weights_and_groups_share_the_engine() -> None:
    setting = Settings(
        policy="vtc:forecast",
        clock="steps",
        weights={"gold": 3.0},
        groups={"gold-1": "gold", "gold-2": "gold"},
    )
    scheduler = fair(setting, seats=4)
    for n in range(100):
        for tenant in ("gold-1", "gold-2", "plain"):
            scheduler.add_request(Request(f"{tenant}-{n}", tenant, length=4, forecast=4))
    for _ in range(100):
        scheduler.step()
    served = {one.client: one.finished for one in scheduler.ledger.controller.scheduler.metrics().clients}
    assert served == {"gold": 75, "plain": 25}


def test_a_policy_that_refuses_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="rpm"):
        fair(Settings(policy="rpm:3"))


def test_an_object_that_never_ran_init_is_the_stock_scheduler() -> None:
    bare = fair_class(Scheduler).__new__(fair_class(Scheduler))
    Scheduler.__init__(bare)
    assert double.run(bare, [Request("r", "a")]) == {"r": 4}
    assert FairMixin.ledger is None


def test_the_queue_can_be_indexed_and_reversed() -> None:
    scheduler = fair()
    for name in ("a0", "a1", "b0"):
        scheduler.add_request(Request(name, name[0]))
    names = [one.request_id for one in scheduler.waiting]
    assert [scheduler.waiting[n].request_id for n in range(3)] == names == ["a0", "a1", "b0"]
    assert [one.request_id for one in reversed(scheduler.waiting)] == names[::-1]
    with pytest.raises(ValueError, match="ghost"):
        scheduler.waiting.remove_request(Request("ghost"))
    scheduler.waiting.remove_request(scheduler.waiting[1])
    assert len(scheduler.waiting) == 2
    with pytest.raises(IndexError):
        fair().waiting.peek_request()


def test_a_failure_of_ours_loses_no_request() -> None:
    def breaks(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken on purpose")

    scheduler = fair(seats=4)
    controller = scheduler.ledger.controller
    for name in ("arrive", "admit", "finish", "pick"):
        setattr(controller, name, breaks)
    assert len(double.run(scheduler, crowd())) == 48
    assert controller.failures["ledger_arrive"] == 48
