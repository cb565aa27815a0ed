"""LightLLM's queue: a double always, the real file where MOPE_LIGHTLLM names a checkout with its packages."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mope.errors import ConfigError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.lightllm_adapter import make_queue, register, start_router_process
from mope.serving_adapters.settings import Settings

SPEC = importlib.util.spec_from_file_location(
    "lightllm_double", Path(__file__).with_name("lightllm_double.py")
)
assert SPEC is not None
assert SPEC.loader is not None
double = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(double)
CHECKOUT = os.environ.get("MOPE_LIGHTLLM", "")


def real_queue() -> Any:
    """`ChunkedPrefillQueue` of the checkout; the router's manager is only imported there to name a type."""
    sys.path.insert(0, CHECKOUT)
    manager = types.ModuleType("lightllm.server.router.manager")
    manager.RouterManager = object  # type: ignore[attr-defined]
    sys.modules[manager.__name__] = manager
    try:
        module = importlib.import_module("lightllm.server.router.req_queue.base_queue")
        module.get_fixed_kv_len = lambda: 0  # type: ignore[attr-defined]
        return importlib.import_module("lightllm.server.router.req_queue").ChunkedPrefillQueue
    finally:
        sys.path.remove(CHECKOUT)


BASES: list[Any] = [pytest.param(double.ChunkedPrefillQueue, id="double")]
if CHECKOUT:
    BASES.append(pytest.param(real_queue(), id="real"))


def controller(policy: str = "vtc:forecast", **settings: Any) -> Controller:
    return Controller(Settings(policy, clock="steps", **settings))


def crowd(heavy: int = 40, light: int = 10) -> list[tuple[int, Any]]:
    return [(0, double.Req("heavy" if n < heavy else "light", n)) for n in range(heavy + light)]


def mean(ends: dict[int, int], numbers: range) -> float:
    return round(sum(ends[number] for number in numbers) / len(numbers), 1)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("policy", ["equinox", "vtc", "vtc:forecast"])
def test_forty_heavy_before_ten_light(base: Any, policy: str) -> None:
    fcfs = double.drive(base(double.arguments(8), double.router(), 0, 1), crowd())
    own = controller(policy)
    fair = double.drive(make_queue(base, own)(double.arguments(8), double.router(), 0, 1), crowd())
    light = range(40, 50)
    assert (mean(fcfs, range(40)), mean(fcfs, light)) == (48.0, 99.2)
    assert mean(fair, light) <= 0.35 * mean(fcfs, light)
    assert max(fair.values()) == max(fcfs.values())
    assert fair.keys() == fcfs.keys()
    assert not own.failures


@pytest.mark.parametrize("base", BASES)
def test_a_paused_request_returns_first_and_is_charged_once(base: Any) -> None:
    own = controller()
    queue = make_queue(base, own)(double.arguments(4), double.router(), 0, 1)
    ends = double.drive(queue, crowd(10, 10), pause_at=5)
    queue.fair.look()
    assert ends.keys() == set(range(20))
    assert own.counts["preempted"] == 1
    counters = [one.user_counter for one in own.scheduler.metrics().clients]
    assert sum(counters) <= 20 * 42 + 42  # a lift, no second charge
    assert not own.scheduler.jobs
    assert not own.failures


@pytest.mark.parametrize("base", BASES)
def test_aborted_requests_go_back_to_shared_memory_and_settle(base: Any) -> None:
    own, router = controller(), double.router()
    queue = make_queue(base, own)(double.arguments(4), router, 0, 1)
    wanted = [one for _, one in crowd(8, 8)]
    for one in wanted:
        queue.append(one)
    for one in wanted[1::2]:
        one.is_aborted = True
    ends = double.drive(queue, [])
    queue.fair.look()
    assert ends.keys() == {one.request_id for one in wanted[::2]}
    assert {one.request_id for one in router.put_back} == {one.request_id for one in wanted[1::2]}
    assert not own.scheduler.jobs
    assert not own.failures


@pytest.mark.parametrize("base", BASES)
def test_several_nodes_keep_their_common_order(base: Any) -> None:
    """With a limit the ranks have agreed on a prefix of the list, which must not be sorted by one of them."""
    queue = make_queue(base, controller())(double.arguments(4), double.router(), 0, 1)
    queue.extend([one for _, one in crowd(4, 4)])
    batch = queue.generate_new_batch(None, 3)
    assert [one.request_id for one in batch.reqs] == [0, 1, 2]


@pytest.mark.parametrize("base", BASES)
def test_without_a_carried_tenant_everybody_is_one(base: Any) -> None:
    own = controller()
    queue = make_queue(base, own)(double.arguments(8), double.router(), 0, 1)
    wanted = [(0, double.Req(None, n)) for n in range(50)]
    stock = double.drive(base(double.arguments(8), double.router(), 0, 1), crowd())
    assert double.drive(queue, wanted) == stock
    assert [one.client for one in own.scheduler.metrics().clients] == ["default"]
    named = make_queue(base, controller(), lambda req: f"t{req.request_id % 2}")
    assert double.drive(named(double.arguments(8), double.router(), 0, 1), crowd()).keys() == stock.keys()


def test_register_wraps_whatever_queue_is_picked() -> None:
    def pick(args: Any, router: Any, dp: int) -> Any:
        return double.ChunkedPrefillQueue

    queues = SimpleNamespace(_get_req_queue_class=pick)
    register(queues)
    register(queues)
    made = queues._get_req_queue_class(None, None, 1)
    assert issubclass(made, double.ChunkedPrefillQueue)
    assert made.__mro__[1] is double.ChunkedPrefillQueue  # once, though registered twice
    with pytest.raises(ConfigError, match="_get_req_queue_class"):
        register(SimpleNamespace())


def test_the_spawned_router_process_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    parents = ("lightllm", "lightllm.server", "lightllm.server.router")
    queues = types.ModuleType("lightllm.server.router.req_queue")
    queues._get_req_queue_class = lambda *_: double.ChunkedPrefillQueue  # type: ignore[attr-defined]
    manager = types.ModuleType("lightllm.server.router.manager")
    manager.start_router_process = lambda *args: started.append(args)  # type: ignore[attr-defined]
    for module in (*map(types.ModuleType, parents), queues, manager):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    start_router_process("args", 1)
    assert started == [("args", 1)]
    assert hasattr(queues._get_req_queue_class, "mope_original")  # type: ignore[attr-defined]


@pytest.mark.skipif(not CHECKOUT, reason="MOPE_LIGHTLLM names no checkout")
def test_the_double_does_as_the_real_queue_does() -> None:
    for sizes in ((6, 300, 100), (8, 4000, 4000), (100, 250, 60)):
        runs = []
        for base in (real_queue(), double.ChunkedPrefillQueue):
            asked = [(n // 4, double.Req("ab"[n % 2], n, 5 + n % 7, 3 + n % 11)) for n in range(60)]
            runs.append(double.drive(base(double.arguments(*sizes), double.router(), 0, 1), asked))
        assert runs[0] == runs[1]
