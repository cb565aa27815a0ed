"""Policies by name, a user's own, the formulas, metrics, the lock."""

from __future__ import annotations

import re
import threading
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mope.equinox import (
    FairScheduler,
    LockedScheduler,
    Policy,
    Refused,
    jain_index,
    make_policy,
    policy_names,
    prometheus_text,
    registry,
)
from mope.equinox.counters import holistic_score, score_factors
from mope.equinox.locked import CALLS
from mope.errors import ConfigError, MopeError
from mope.types import Capacity, Forecast, LengthForecast, Request, Span, Usage

ROOM = Capacity(1e9, 10**6)


def send(scheduler: FairScheduler, request_id: str, now: float = 0.0, tokens: float = 10.0) -> None:
    request = Request("", request_id, request_id[0], prompt_tokens=10)
    scheduler.submit(request, now, Forecast.of_tokens(tokens))


def drain(scheduler: FairScheduler) -> list[str]:
    ids = []
    while (request := scheduler.next(ROOM, 1e3)) is not None:
        ids.append(request.id)
    return ids


def test_policies_have_names_and_words():
    assert {"fcfs", "rpm", "vtc", "lcf", "equinox"} <= set(policy_names())
    assert make_policy("rpm:5").config.limit == 5
    assert make_policy("vtc:oracle").oracle
    assert make_policy("vtc:oracle,cost=profiled").config.cost == "profiled"
    assert make_policy("equinox: alpha=0.5 , beta=0.5").config.alpha == 0.5
    assert make_policy("equinox:alpha=0.5", alpha=0.9).config.alpha == 0.9
    assert not make_policy("equinox").oracle


@pytest.mark.parametrize(
    "spec",
    [
        "nonsense", "", "fcfs:3", "rpm:many", "rpm:0", "rpm:window_s=0", "vtc:guess", "vtc:cost=free", "vtc:k_in=0",
        "equinox:alpha=-1", "equinox:alpha=nan", "equinox:alpha=0,beta=0", "equinox:k_out=0", "equinox:latency=none",
        "equinox:resource=x", "equinox:normaliser=x", "equinox:gamma=1", "equinox:0.3",
    ],
)  # fmt: skip
def test_wrong_words_are_refused(spec):
    with pytest.raises(ConfigError):
        make_policy(spec)


@pytest.mark.parametrize("settings", [{"gamma": 1}, {"alpha": float("inf")}, {"latency": "never"}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        make_policy("equinox", **settings)


class Shortest(Policy):
    """A user's own: the head foreseen shortest is next."""

    name = "shortest"

    def score(self, user, resource, head):
        return int(head.tokens * 1000)


def test_a_policy_of_ones_own_comes_by_entry_point(monkeypatch):
    point = EntryPoint("shortest", f"{__name__}:Shortest", registry.GROUP)
    wrong = EntryPoint("wrong", "math:pi", registry.GROUP)

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [one for one in (point, wrong) if name in (None, one.name)]

    monkeypatch.setattr(EntryPoint, "load", lambda self: Shortest if self.name == "shortest" else 3.14)
    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert "shortest" in policy_names()
    scheduler = FairScheduler("shortest")
    for request_id, tokens in (("a1", 30), ("a2", 1), ("b1", 20), ("c1", 10), ("c2", 25)):
        send(scheduler, request_id, tokens=tokens)
    assert drain(scheduler) == ["c1", "b1", "c2", "a1", "a2"]  # first in, first out within a client
    with pytest.raises(ConfigError, match="subclass"):
        make_policy("wrong")


def test_a_head_that_changes_its_key_is_found():
    """Scores may hang on the head: after a1 has left, a2 is sooner than b1."""
    scheduler = FairScheduler(Shortest())
    for request_id, tokens in (("a1", 5), ("a2", 1), ("b1", 3)):
        send(scheduler, request_id, tokens=tokens)
    scheduler.cancel("a1", 1.0)
    assert drain(scheduler) == ["a2", "b1"]


def test_fcfs_is_first_come_first_served():
    scheduler = FairScheduler("fcfs")
    for request_id in ("a1", "b1", "a2", "a3", "c1"):
        send(scheduler, request_id)
    assert drain(scheduler) == ["a1", "b1", "a2", "a3", "c1"]
    scheduler.requeue("a2", 1e3)
    scheduler.requeue("b1", 1e3)
    send(scheduler, "a4", 1e3)
    assert drain(scheduler) == ["b1", "a2", "a4"]


def test_rpm_refuses_at_the_limit_and_only_counts_what_it_took():
    scheduler = FairScheduler("rpm:2")
    for request_id, now in (("a1", 0.0), ("b1", 1.0), ("a2", 30.0)):
        send(scheduler, request_id, now)
    for now in (30.0, 59.9):
        with pytest.raises(Refused, match="2 requests in the last 60 s"):
            send(scheduler, "a3", now)
    send(scheduler, "a3", 60.0)  # a1 is 60 s old
    with pytest.raises(MopeError):
        send(scheduler, "a4", 89.0)
    assert drain(scheduler) == ["a1", "b1", "a2", "a3"]
    assert [one.refused for one in scheduler.metrics().clients] == [3, 0]


def test_rpm_keeps_an_idle_client_while_its_window_lasts():
    scheduler = FairScheduler("rpm:1")
    send(scheduler, "a1", 0.0)
    scheduler.cancel("a1", 1.0)
    for now, kept in ((59.0, True), (61.0, False)):
        scheduler.sweep(now)
        assert ("a" in scheduler.accounts.by_name) is kept


def test_the_charge_of_equinox_by_hand():
    """10 + 4 * 50 tokens, weight 2, 3 s at the head and 2 s of service; 25 tokens/s at 0.8."""
    scheduler = FairScheduler("equinox", weights={"a": 2.0})
    length = LengthForecast(50.0, 40.0, 60.0, (0.1, 0.5, 0.9), (40.0, 50.0, 60.0), "", (0, 0, 0))
    forecast = Forecast(length, latency_s=Span(2.0, 1, 3), tokens_per_s=Span(25.0, 20, 30), gpu_util=0.8)
    scheduler.submit(Request("", "a", "a", prompt_tokens=10), 0.0, forecast)
    scheduler.next(ROOM, 3.0)
    client = scheduler.metrics().clients[0]
    assert client.user_counter == pytest.approx(210 / (2 * 1.5))
    assert client.resource_counter == pytest.approx(25 * 0.8 / 2)
    scheduler.finish("a", Usage(20, gpu_util=0.5), 8.0)  # 5 s of service, 4 tokens/s
    client = scheduler.metrics().clients[0]
    assert client.user_counter == pytest.approx(90 / (2 * 1.8))
    assert client.resource_counter == pytest.approx(4 * 0.5 / 2)


def test_a_finish_after_no_time_yields_no_more_than_the_deployment():
    scheduler = FairScheduler("equinox:peak_tokens_per_s=100")
    send(scheduler, "a")
    scheduler.next(ROOM, 0.0)
    scheduler.finish("a", Usage(1000), 1e-9)
    assert scheduler.metrics().clients[0].resource_counter == 100 * 0.5


def test_the_holistic_score_weighs_by_constants():
    a, b = score_factors(0.7, 0.3, 10_000.0, 2500.0)
    score = holistic_score(300 * 2**64, 20 * 2**64, a, b) / 2**128
    assert score == pytest.approx(0.7 * 300 / 10_000 + 0.3 * 20 / 2500)
    unit = make_policy("equinox:normaliser=unit").config
    work = make_policy("equinox:resource=work").config
    assert (unit.n_u, unit.n_r, work.n_u, work.n_r) == (1.0, 1.0, 10_000.0, 1.0)


def test_jains_index():
    assert jain_index([]) == 1.0
    assert jain_index([5, 5, 5]) == pytest.approx(1.0)
    assert jain_index([1, 0, 0]) == pytest.approx(1.0)  # who asked for nothing does not count
    assert jain_index([1, 3]) == pytest.approx(16 / 20)
    assert jain_index([1e300, 1e300]) == pytest.approx(1.0)


def test_metrics_and_their_text():
    scheduler = FairScheduler("vtc", weights={'a"\\\n': 2.0})
    scheduler.submit(Request("", "r1", 'a"\\\n', prompt_tokens=10), 0.0)
    scheduler.submit(Request("", "r2", 'a"\\\n', prompt_tokens=10), 0.0)
    scheduler.next(ROOM, 1.5)
    scheduler.finish("r1", Usage(30), 2.0)
    metrics = scheduler.metrics()
    client = metrics.clients[0]
    assert (client.user_counter, client.waiting, client.running, client.waited_s) == (35.0, 1, 0, 1.5)
    assert (client.prompt_tokens, client.output_tokens, metrics.waiting, metrics.jain) == (10, 30, 1, 1.0)
    text = prometheus_text(metrics)
    assert 'mope_equinox_user_counter{client="a\\"\\\\\\n"} 35\n' in text
    assert "# TYPE mope_equinox_all_jain gauge\nmope_equinox_all_jain 1\n" in text


def test_every_call_of_the_door_is_locked():
    calls = {name for name, member in vars(FairScheduler).items() if callable(member) and name[0] != "_"}
    assert calls - {"restore", "growth_tokens"} <= set(CALLS)


def test_many_threads_lose_nothing():
    scheduler = LockedScheduler("equinox")
    served: list[str] = []

    def work(name: str) -> None:
        for i in range(200):
            send(scheduler, f"{name}{i}")
            request = scheduler.next(ROOM, 1.0)
            if request is not None:
                scheduler.progress(request.id, 3, 1.0)
                scheduler.finish(request.id, Usage(5), 1.0)
                served.append(request.id)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(served)) == len(served) == 800
    assert scheduler.growth_tokens == 0
    assert not scheduler.jobs
    assert type(LockedScheduler.restore(scheduler.snapshot())) is LockedScheduler


def test_a_call_waits_for_the_lock():
    scheduler = LockedScheduler("fcfs")
    done = threading.Event()
    with scheduler.lock:
        thread = threading.Thread(target=lambda: (send(scheduler, "a"), done.set()))
        thread.start()
        assert not done.wait(0.05)
    thread.join()
    assert done.is_set()


def test_the_snippet_of_the_document_runs():
    text = (Path(__file__).parents[2] / "docs/equinox.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["request"].id == "r1"
    assert names["scheduler"].metrics().clients[0].finished == 1
