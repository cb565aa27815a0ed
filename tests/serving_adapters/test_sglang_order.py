"""The fair order against a small engine with SGLang's loop: sort, admit from the front, decode, retract, abort."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.equinox.counters import GRAIN
from mope.errors import ConfigError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.sglang_ledger import STALE
from mope.serving_adapters.sglang_order import FairOrder
from mope.serving_adapters.sglang_requests import CARRIERS, custom_param, tenant_reader

NAMED = {"FINISH_ABORT": type("FINISH_ABORT", (), {}), "FINISH_LENGTH": type("FINISH_LENGTH", (), {})}


def request(rid: str, tenant: str | None = None, *, output: int = 8, prompt: int = 4, **more: Any) -> Any:
    """A light double of SGLang's `Req`."""
    one = SimpleNamespace(
        rid=rid, routing_key=tenant, extra_key=None, lora_id=None, priority=0, origin_input_ids=[0] * prompt,
        output_ids=[], finished_reason=None, is_retracted=False, length=output,
        time_stats=SimpleNamespace(forward_entry_time=0.0),
        sampling_params=SimpleNamespace(max_new_tokens=512, custom_params=None),
    )  # fmt: skip
    one.finished = lambda: one.finished_reason is not None
    vars(one).update(more)
    return one


def foreseen(tokens: object) -> Any:
    return SimpleNamespace(max_new_tokens=512, custom_params={"predicted_tokens": tokens})


class Engine:
    """SGLang's loop, four rows of it. `finished_at` is by rid, in steps."""

    def __init__(self, fair: FairOrder | None, slots: int = 4, clock: Any = None) -> None:
        self.fair, self.slots = fair, slots
        self.waiting: list[Any] = []
        self.running: list[Any] = []
        self.steps = 0
        self.finished_at: dict[str, int] = {}
        self.log: list[str] = []
        self.clock = clock or (lambda: 1.0)

    def step(self) -> None:
        if self.waiting and len(self.running) < self.slots:
            if self.fair is not None:
                self.fair.sort(self.waiting)
            self.log.append(" ".join(one.rid for one in self.waiting))
            while self.waiting and len(self.running) < self.slots:
                one = self.waiting.pop(0)
                one.is_retracted = False
                one.time_stats.forward_entry_time = one.time_stats.forward_entry_time or self.clock()
                self.running.append(one)
        self.steps += 1
        for one in list(self.running):
            one.output_ids.append(0)
            if len(one.output_ids) >= one.length:
                self.end(one, "FINISH_LENGTH")

    def end(self, one: Any, how: str) -> None:
        one.finished_reason = NAMED[how]()
        self.running.remove(one)
        self.finished_at[one.rid] = self.steps

    def abort(self, one: Any) -> None:
        if one in self.waiting:
            self.waiting.remove(one)
            self.finished_at[one.rid] = self.steps
        else:
            self.end(one, "FINISH_ABORT")

    def retract(self, one: Any) -> None:
        self.running.remove(one)
        one.is_retracted = True
        self.waiting.append(one)

    def run(self) -> None:
        while self.waiting or self.running:
            self.step()


def order(**settings: Any) -> FairOrder:
    return FairOrder(Controller(Settings.from_mapping(settings)))


def settle(engine: Engine) -> None:
    """One more call, with a request of somebody else, so that what ended is seen."""
    assert engine.fair is not None
    engine.fair.sort([request("last", "nobody")])


def heavy_and_light(fair: FairOrder | None, length: int = 16) -> Engine:
    engine = Engine(fair)
    engine.waiting = [request(f"h{i}", "heavy", output=length) for i in range(40)]
    engine.waiting += [request(f"l{i}", "light", output=length) for i in range(8)]
    engine.run()
    return engine


def mean_step(engine: Engine, tenant: str) -> float:
    steps = [step for rid, step in engine.finished_at.items() if rid.startswith(tenant)]
    return sum(steps) / len(steps)


@pytest.mark.parametrize("policy", ["equinox", "vtc", "vtc:forecast"])
def test_a_light_tenant_is_not_behind_forty_of_a_heavy_one(policy: str) -> None:
    stock, fair = heavy_and_light(None), heavy_and_light(order(policy=policy))
    assert mean_step(stock, "l") == 11.5 * 16  # the last two of twelve rounds
    assert mean_step(fair, "l") <= 0.28 * mean_step(stock, "l")
    assert fair.steps == stock.steps
    assert fair.finished_at.keys() == stock.finished_at.keys()


def test_the_first_call_interleaves_what_one_batch_takes() -> None:
    waiting = [request(f"h{i}", "h") for i in range(6)] + [request(f"l{i}", "l") for i in range(2)]
    order().sort(waiting)
    assert [one.rid for one in waiting] == ["h0", "l0", "h1", "l1", "h2", "h3", "h4", "h5"]


def test_one_tenant_is_served_in_the_engines_own_order() -> None:
    waiting = [request(f"r{i}", "only") for i in range(9)]
    before = list(waiting)
    fair = order()
    for _ in range(3):
        fair.sort(waiting)
        assert waiting == before


@given(seed=st.integers(0, 10**6), policy=st.sampled_from(["equinox", "vtc", "fcfs", "vtc:forecast"]))
def test_a_sort_loses_nothing_and_keeps_each_tenants_order(seed: int, policy: str) -> None:
    rng, fair = random.Random(seed), order(policy=policy)
    waiting = [
        request(f"r{i}", rng.choice("abc"), prompt=rng.randrange(1, 90)) for i in range(rng.randrange(40))
    ]
    for _ in range(4):
        rng.shuffle(waiting)  # whatever the engine's policy sorts by
        before = list(waiting)
        fair.sort(waiting)
        assert sorted(map(id, waiting)) == sorted(map(id, before))
        for tenant in "abc":
            own = [one for one in before if one.routing_key == tenant]
            assert [one for one in waiting if one.routing_key == tenant] == own


def tokens_charged(fair: FairOrder, tenant: str) -> float:
    """Weighted tokens on the user counter; the policy is plain VTC."""
    return fair.controller.scheduler.accounts.by_name[tenant].user / GRAIN


@given(seed=st.integers(0, 10**6), policy=st.sampled_from(["vtc", "vtc:forecast", "equinox"]))
def test_nothing_is_left_open_whatever_happened(seed: int, policy: str) -> None:
    rng, engine = random.Random(seed), Engine(order(policy=policy))
    sent = []
    for step in range(60):
        if rng.random() < 0.6:
            words = foreseen(rng.choice([None, 3, 50, -1, "x", float("nan")]))
            sent.append(
                request(f"r{step}", rng.choice("abc"), output=rng.randrange(1, 20), sampling_params=words)
            )
            engine.waiting.append(sent[-1])
        if engine.running and rng.random() < 0.2:
            engine.retract(rng.choice(engine.running))
        if engine.running + engine.waiting and rng.random() < 0.2:
            engine.abort(rng.choice(engine.running + engine.waiting))
        engine.step()
    engine.run()
    settle(engine)
    fair = engine.fair
    assert fair is not None
    metrics = fair.controller.scheduler.metrics()
    assert (metrics.running, metrics.waiting) == (0, 1)
    assert len(fair.ledger.open) == len(fair.ledger.by_id) == 1
    assert not fair.ledger.running
    assert not fair.controller.failures
    assert engine.finished_at.keys() == {one.rid for one in sent}
    known = {one.client: one for one in metrics.clients}
    for tenant in {one.routing_key for one in sent} & known.keys():
        made = sum(len(one.output_ids) for one in sent if one.routing_key == tenant)
        assert known[tenant].output_tokens == made


def test_the_counters_are_what_was_really_served() -> None:
    """A never stops waiting, so nothing is lifted: its counter is the sum of its prompts and outputs."""
    fair = order(policy="vtc:forecast")
    engine = Engine(fair, slots=2)
    engine.waiting = [request(f"a{i}", "a", output=10, sampling_params=foreseen(100)) for i in range(8)]
    for _ in range(5):
        engine.step()
    engine.abort(engine.running[0])  # five tokens
    engine.abort(engine.waiting[0])  # none
    engine.retract(engine.running[0])
    engine.step()
    engine.run()
    settle(engine)
    assert tokens_charged(fair, "a") == 7 * 4 + 2 * (6 * 10 + 5)


def test_a_retracted_request_is_charged_once_and_comes_back() -> None:
    fair = order(policy="vtc")
    engine = Engine(fair, slots=3)
    engine.waiting = [request(name, name, output=2 if name == "c" else 9) for name in "abcd"]
    for _ in range(3):
        engine.step()
    engine.retract(engine.running[0])
    engine.run()
    settle(engine)
    assert [tokens_charged(fair, name) for name in "ab"] == [4 + 2 * 9] * 2
    assert fair.controller.counts["preempted"] == 1


def test_a_request_retracted_and_aborted_while_it_waits_is_over() -> None:
    fair = order(policy="vtc")
    engine = Engine(fair, slots=1)
    engine.waiting = [request("a", "a", output=9), request("b", "b", output=3)]
    for _ in range(4):
        engine.step()
    one = engine.running[0]
    engine.retract(one)
    engine.waiting.remove(one)
    engine.waiting.insert(0, one)
    fair.sort(engine.waiting)
    engine.abort(one)
    engine.run()
    settle(engine)
    assert tokens_charged(fair, "a") == 4 + 2 * 4
    assert fair.controller.scheduler.metrics().running == 0


def world_log(seed: int, irrelevant: int) -> list[str]:
    """All orders of a run; `irrelevant` seeds what differs between ranks: clocks, and other objects in memory."""
    rng, other = random.Random(seed), random.Random(irrelevant)
    engine = Engine(order(), clock=lambda: other.uniform(1, 1e9))
    kept = []
    for step in range(80):
        kept.append([object() for _ in range(other.randrange(50))])
        if rng.random() < 0.7:
            one = request(f"r{step}", rng.choice("abcd"), output=rng.randrange(1, 30))
            words = [("predicted_tokens", rng.randrange(40)), ("x", 1), ("y", 2)]
            other.shuffle(words)
            one.sampling_params.custom_params = dict(words)
            one.time_stats.wait_queue_entry_time = other.random()
            engine.waiting.append(one)
        if engine.running and rng.random() < 0.1:
            engine.retract(rng.choice(engine.running))
        engine.step()
    engine.run()
    return engine.log


def test_two_ranks_come_to_the_same_orders() -> None:
    first = world_log(5, 1)
    assert len({*first}) > 20
    assert all(world_log(5, other) == first for other in (2, 3))


def test_two_processes_with_other_hashes_come_to_the_same_orders() -> None:
    import os

    code = "import runpy, sys; found = runpy.run_path(sys.argv[1]); sys.stdout.write(repr(found['world_log'](7, 1)))"
    logs = [
        subprocess.run(
            [sys.executable, "-c", code, __file__],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert logs[0] == logs[1]
    assert len(logs[0]) > 1000


@pytest.mark.parametrize("said", [None, -3, float("inf"), float("nan"), "many", [1], {"a": 1}, 10**400, True])
def test_a_forecast_that_makes_no_sense_costs_no_step(said: object) -> None:
    engine = Engine(order())
    engine.waiting = [request(f"r{i}", "ab"[i % 2], sampling_params=foreseen(said)) for i in range(12)]
    engine.run()
    assert engine.steps == 3 * 8
    settle(engine)
    assert engine.fair is not None
    assert engine.fair.controller.scheduler.metrics().clients[0].fallbacks == 6
    assert not engine.fair.controller.failures


def test_forecasts_are_used() -> None:
    """A request of a is charged 4 + 2 x 10 = 24, one of b 64: a goes on while it has less than b."""
    fair = order(policy="vtc:forecast")
    waiting = [request(f"a{i}", "a", sampling_params=foreseen(10)) for i in range(6)]
    waiting += [request(f"b{i}", "b", sampling_params=foreseen(30)) for i in range(3)]
    fair.sort(waiting)
    assert "".join(one.rid[0] for one in waiting) == "abaabaaab"


def test_priorities_stand_above_fairness() -> None:
    waiting = [request(f"a{i}", "a", priority=1) for i in range(3)] + [request("b0", "b", priority=1)]
    waiting += [
        request("a3", "a", priority=5),
        request("a4", "a", priority=5),
        request("b1", "b", priority=5),
    ]
    order().sort(waiting, by_priority=True)
    assert [one.rid for one in waiting] == ["a0", "b0", "a1", "a2", "a3", "b1", "a4"]


def test_weights_and_groups_count() -> None:
    fair = order(policy="vtc:forecast", weights={"gold": 3}, groups={"key-2": "gold"})
    waiting = [request(f"n{i}", "n") for i in range(4)]
    waiting += [request(f"g{i}", ("gold", "key-2")[i % 2]) for i in range(6)]
    fair.sort(waiting)
    assert "".join(one.rid[0] for one in waiting) == "nggg" + "nggg" + "nn"


@pytest.mark.parametrize(
    ("fields", "tenant"),
    [
        ({"routing_key": "r", "extra_key": "e"}, "r"),
        ({"extra_key": "e"}, "e"),
        ({"extra_key": "eid-7", "lora_id": "id-7"}, "e"),
        ({"extra_key": "id-7", "lora_id": "id-7"}, "id-7"),
        ({"rid": "team/4711"}, "team"),
        ({"rid": "4711"}, None),
        ({"routing_key": "", "rid": "/4711"}, None),
    ],
)
def test_who_the_tenant_is(fields: dict[str, Any], tenant: str | None) -> None:
    assert (
        tenant_reader()(
            request("r", None, **{name: value for name, value in fields.items() if name != "rid"})
            if "rid" not in fields
            else request(**{"rid": "r", "tenant": None, **fields})
        )
        == tenant
    )


def test_carriers_are_chosen_by_name() -> None:
    one = request("team/1", "key")
    one.sampling_params.custom_params = {"tenant": "own"}
    assert [tenant_reader((name,))(one) for name in CARRIERS] == ["key", None, None, "team", "own"]
    assert tenant_reader(("rid", "routing_key"))(one) == "team"
    with pytest.raises(ConfigError, match="routing_key"):
        tenant_reader(("header",))


def test_custom_params_of_another_shape_are_none() -> None:
    one = request("r")
    for value in (None, [], "x", 5):
        one.sampling_params.custom_params = value
        assert custom_param(one, "tenant") is None


def test_hostile_names_leave_few_accounts() -> None:
    fair = order(max_tenants=50)
    for batch in range(40):
        engine = Engine(fair, slots=100)
        names = ["\x00\n" * 50_000, *(f"t{batch}-{i}" for i in range(50))]
        engine.waiting = [request(str(i), name, output=1) for i, name in enumerate(names)]
        engine.run()
    assert len(fair.controller.scheduler.accounts.by_name) <= 50 + 64
    assert len(fair.controller.metrics_text()) < 100_000
    assert not fair.controller.failures


def test_a_request_the_engine_forgot_is_given_up() -> None:
    fair = order()
    waiting = [request("a", "a"), request("b", "b")]
    fair.sort(waiting)
    lost = waiting.pop(0)
    lost.time_stats.forward_entry_time = 1.0
    for _ in range(STALE + 3):
        fair.sort(waiting)
    assert fair.controller.scheduler.metrics().running == 0


def test_a_new_request_with_an_old_id_is_another() -> None:
    fair = order()
    engine = Engine(fair)
    for _ in range(3):
        engine.waiting = [request("same", "a"), request("same", "b")]
        engine.run()
    settle(engine)
    assert [one.finished for one in fair.controller.scheduler.metrics().clients[:2]] == [3, 3]


def test_a_request_that_stands_twice_stays_twice() -> None:
    fair, one = order(), request("a", "a")
    waiting = [one, request("b", "b"), one]
    fair.sort(waiting)
    fair.sort(waiting)
    assert sum(item is one for item in waiting) == 2
    del waiting[:]
    fair.sort(waiting)
    assert fair.controller.scheduler.metrics().waiting == 0


def test_few_are_ordered_once_the_engines_size_is_known() -> None:
    engine = Engine(order())
    engine.waiting = [request(f"h{i}", "h") for i in range(500)] + [request(f"l{i}", "l") for i in range(9)]
    engine.step()
    for _ in range(7):
        engine.step()
    engine.step()
    assert engine.fair is not None
    assert engine.fair.may_start() <= 12
    served = defaultdict(int)
    engine.run()
    for rid in list(engine.finished_at)[:18]:
        served[rid[0]] += 1
    assert served == {"h": 9, "l": 9}
