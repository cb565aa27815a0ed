"""S-LoRA's and VTC-artifact's queues: a double always, the real files where MOPE_SLORA names a checkout."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.errors import ConfigError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.slora_adapter import make_queue, register, start_router_process

SPEC = importlib.util.spec_from_file_location("slora_double", Path(__file__).with_name("slora_double.py"))
assert SPEC is not None
assert SPEC.loader is not None
double = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(double)
CHECKOUT = os.environ.get("MOPE_SLORA", "")


def controller(policy: str = "vtc:forecast") -> Controller:
    return Controller(Settings(policy, clock="steps"))


def double_req(adapter: str | None, name: str, prompt: int = 10, output: int = 16) -> Any:
    return double.Req(adapter, name, prompt, output)


def real(module: str) -> Any:
    """A module of the checkout; torch is only imported at the top of a helper there, so an empty one will do."""
    sys.path.insert(0, CHECKOUT)
    if importlib.util.find_spec("torch") is None:
        for name in ("torch", "torch.distributed"):
            sys.modules.setdefault(name, types.ModuleType(name))
    try:
        return importlib.import_module(f"slora.server.{module}")
    finally:
        sys.path.remove(CHECKOUT)


def real_req(adapter: str | None, name: str, prompt: int = 10, output: int = 16) -> Any:
    params = real("sampling_params").SamplingParams(max_new_tokens=output, ignore_eos=True)
    return real("io_struct").Req(adapter, name, list(range(prompt)), params)


Bases = list[Any]
BASES: Bases = [pytest.param((double.ReqQueue, double_req), id="double")]
if CHECKOUT:
    BASES.append(pytest.param((real("router.req_queue").ReqQueue, real_req), id="real"))


def crowd(req: Callable[..., Any], heavy: int = 40, light: int = 10, **sizes: Any) -> list[tuple[int, Any]]:
    return [(0, req("heavy", f"h{n}", **sizes)) for n in range(heavy)] + [
        (0, req("light", f"l{n}", **sizes)) for n in range(light)
    ]


def mean(ends: dict[str, int], start: str) -> float:
    found = [step for name, step in ends.items() if name.startswith(start)]
    return round(sum(found) / len(found), 1)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("policy", ["equinox", "vtc", "vtc:forecast"])
def test_forty_heavy_before_ten_light(kind: Any, policy: str) -> None:
    base, req = kind
    fcfs = double.drive(base(4000, 4000, 8), crowd(req))
    fair = double.drive(make_queue(base, controller(policy))(4000, 4000, 8), crowd(req))
    vtc = double.drive(double.VtcReqQueue(4000, 4000, 8), crowd(double_req))
    assert max(fair.values()) == max(fcfs.values())  # nothing idles
    assert fair.keys() == fcfs.keys()
    assert mean(fair, "l") <= 0.35 * mean(fcfs, "l")
    assert mean(fair, "l") <= mean(vtc, "l") + 2
    assert (mean(fcfs, "h"), mean(fcfs, "l")) == (48.0, 99.2)


@pytest.mark.parametrize("kind", BASES)
def test_one_tenant_is_first_come_first_served(kind: Any) -> None:
    base, req = kind
    one = [(n // 5, req("only", f"r{n}", 5 + n % 7, 3 + n % 11)) for n in range(60)]
    two = [(n // 5, req("only", f"r{n}", 5 + n % 7, 3 + n % 11)) for n in range(60)]
    assert double.drive(base(300, 100, 6), one) == double.drive(
        make_queue(base, controller())(300, 100, 6), two
    )


@pytest.mark.parametrize("kind", BASES)
def test_a_router_that_never_tells_of_tokens_is_read_all_the_same(kind: Any) -> None:
    base, req = kind
    own = controller("vtc")
    queue = make_queue(base, own)(4000, 4000, 8)
    queue.update_counter = lambda batch: None
    ends = double.drive(queue, crowd(req))
    queue.fair.look()
    assert mean(ends, "l") <= 0.35 * 99.2
    assert not own.scheduler.jobs
    assert sum(one.output_tokens for one in own.scheduler.metrics().clients) == 50 * 16


@pytest.mark.parametrize("kind", BASES)
def test_weights_belong_to_adapters_in_order(kind: Any) -> None:
    base, req = kind
    queue = make_queue(base, controller())(4000, 4000, 4, ["gold", "plain"], [3], "linear", 1, 2)
    wanted = [(0, req(who, f"{who[0]}{n}")) for who in ("gold", "plain") for n in range(24)]
    ends = sorted(double.drive(queue, wanted).items(), key=lambda item: item[1])
    first = [name[0] for name, _ in ends[:16]]
    assert (first.count("g"), first.count("p")) == (12, 4)


@pytest.mark.parametrize("kind", BASES)
def test_aborts_waiting_or_running_leave_the_counters_settled(kind: Any) -> None:
    base, req = kind
    own = controller()
    queue = make_queue(base, own)(4000, 4000, 4)
    wanted = crowd(req, 10, 10)
    for _, one in wanted:
        queue.append(one)
    running = queue.generate_new_batch(None, double._Ranks())
    for _, one in wanted[::2]:
        one.aborted = True
    ends = double.drive(queue, [], batch=running)
    assert all(one.request_id in ends or one.aborted for _, one in wanted)
    queue.fair.look()
    assert not own.scheduler.jobs
    assert own.scheduler.running == 0
    assert not own.failures
    counters = {one.client: one.user_counter for one in own.scheduler.metrics().clients}
    begun = sum(bool(one.output_ids) for _, one in wanted)
    done = sum(not one.aborted for _, one in wanted)
    told = own.scheduler.metrics().clients
    assert sum(one.finished for one in told) == done
    assert sum(one.cancelled for one in told) == 20 - done
    assert sum(one.admitted for one in told) == begun
    whole = {who: sum(one.adapter_dir == who and not one.aborted for _, one in wanted) for who in counters}
    aborted = sum(one.aborted and bool(one.output_ids) for _, one in wanted)
    assert sum(counters.values()) >= sum(whole.values()) * (10 + 2 * 16)
    assert sum(counters.values()) <= sum(whole.values()) * 42 + aborted * (10 + 2 * 2) + 42


@pytest.mark.parametrize("kind", BASES)
@settings(max_examples=30)
@given(data=st.data())
def test_nothing_is_lost_or_run_twice(kind: Any, data: st.DataObject) -> None:
    base, req = kind
    sizes = st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 40), st.integers(2, 30))
    asked = data.draw(st.lists(sizes, max_size=25))
    wanted = [(n // 3, req(who, str(n), prompt, output)) for n, (who, prompt, output) in enumerate(asked)]
    own = controller(data.draw(st.sampled_from(["equinox", "vtc", "fcfs"])))
    ends = double.drive(make_queue(base, own)(400, 60, 5), wanted)
    assert ends.keys() == {one.request_id for _, one in wanted}
    assert not own.scheduler.jobs
    assert not own.failures


def test_a_queue_for_prefetching_is_in_fair_order_too() -> None:
    queue = make_queue(double.ReqQueue, controller())(4000, 4000, 4)
    for _, one in crowd(double_req, 6, 1):
        queue.append(one)
    batch = queue.generate_new_batch(None, double._Ranks())
    assert {one.request_id for one in batch.reqs} == {"h0", "l0", "h1", "h2"}
    assert [one.request_id for one in queue.next_batch().reqs] == ["h3"]
    queue.reset_abort_list()
    assert queue.abort_req_list == []


def test_register_adds_one_word_and_leaves_the_others() -> None:
    def get_scheduler(params: Any, dirs: Any) -> str:
        return f"theirs {params.scheduler}"

    manager = SimpleNamespace(get_scheduler=get_scheduler, ReqQueue=double.ReqQueue)
    register(manager)
    register(manager)
    sizes = {"max_total_token_num": 400, "batch_max_tokens": 60, "running_max_req_size": 5}
    made = manager.get_scheduler(
        SimpleNamespace(scheduler="equinox", fair_weights=[2], **sizes), ["adapters/one", None]
    )
    assert isinstance(made, double.ReqQueue)
    assert made.running_max_req_size == 5
    assert made.fair.controller.scheduler.accounts.weights == {"adapters/one": 2}
    assert manager.get_scheduler(SimpleNamespace(scheduler="vtc_fair"), []) == "theirs vtc_fair"
    with pytest.raises(ConfigError, match="get_scheduler"):
        register(SimpleNamespace(ReqQueue=double.ReqQueue))


def test_the_spawned_router_process_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    manager = types.ModuleType("slora.server.router.manager")
    manager.get_scheduler, manager.ReqQueue = (lambda *_: None), double.ReqQueue  # type: ignore[attr-defined]
    manager.start_router_process = lambda *args: started.append(args)  # type: ignore[attr-defined]
    for name in ("slora", "slora.server", "slora.server.router"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, manager.__name__, manager)
    start_router_process("args", 1)
    assert started == [("args", 1)]
    assert hasattr(manager.get_scheduler, "mope_original")  # type: ignore[attr-defined]


@pytest.mark.skipif(not CHECKOUT, reason="MOPE_SLORA names no checkout")
def test_the_double_does_as_the_real_queue_does() -> None:
    theirs = real("router.req_queue").ReqQueue
    for sizes in ((300, 100, 6), (4000, 4000, 8), (250, 60, 100)):
        asked = [("ab"[n % 2], f"r{n}", 5 + n % 7, 3 + n % 11) for n in range(60)]
        one = double.drive(theirs(*sizes), [(n // 4, real_req(*ask)) for n, ask in enumerate(asked)])
        two = double.drive(
            double.ReqQueue(*sizes), [(n // 4, double_req(*ask)) for n, ask in enumerate(asked)]
        )
        assert one == two


@pytest.mark.skipif(not CHECKOUT, reason="MOPE_SLORA names no checkout")
def test_the_doubles_vtc_does_as_the_real_one_does() -> None:
    theirs = real("router.vtc_req_queue").VTCReqQueue
    names = ["heavy", "light"]
    more = (names, [1], "linear") if "cost_func" in theirs.__init__.__code__.co_varnames else (names, [1])
    one = double.drive(theirs(4000, 4000, 8, *more), crowd(real_req))
    two = double.drive(double.VtcReqQueue(4000, 4000, 8), crowd(double_req))
    assert (mean(one, "h"), mean(one, "l")) == (mean(two, "h"), mean(two, "l"))
