"""Forecasts off the critical path: in time, late, wrong, too many."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

from mope.serving_adapters.forecasts import Advice, as_forecast
from mope.types import Forecast, Request


def wait(advice: Advice, count: int) -> list[tuple[str, Forecast]]:
    """What has come once `count` requests are no longer open."""
    found: list[tuple[str, Forecast]] = []
    for _ in range(1000):
        found += advice.take()
        if sum(advice.counts.values()) - advice.counts["asked"] >= count:
            return found
        time.sleep(0.005)
    raise AssertionError(advice.counts)


def asked(*names: str) -> list[Request]:
    return [Request(f"prompt of {name}", name) for name in names]


def test_a_forecast_in_time_is_ready_to_take() -> None:
    seen: list[str] = []

    def predict(requests: list[Request]) -> list[int]:
        seen.extend(request.prompt for request in requests)
        return [len(request.id) for request in requests]

    advice = Advice(predict, deadline_ms=60_000)
    advice.ask(asked("a")[0])
    advice.ask(asked("bb")[0], prompt=lambda: "made in the thread")
    found = {name: forecast.length.tokens for name, forecast in wait(advice, 2)}
    assert found == {"a": 1, "bb": 2}
    assert seen == ["prompt of a", "made in the thread"]
    advice.close()


def test_one_bad_request_does_not_take_the_others_forecasts() -> None:
    def predict(requests: list[Request]) -> list[float]:
        if any(request.id == "bad" for request in requests):
            raise ValueError("bad")
        return [7.0] * len(requests)

    advice = Advice(predict, deadline_ms=60_000)
    hold = threading.Event()
    advice.ask(Request("", "first"), prompt=lambda: str(hold.wait(5)))
    for request in asked("x", "bad", "y"):
        advice.ask(request)
    advice.ask(Request("", "torn"), prompt=lambda: str(1 // 0))
    hold.set()
    assert {name for name, _ in wait(advice, 5)} == {"first", "x", "y"}
    assert advice.counts == {"asked": 5, "used": 3, "failed": 2}
    advice.close()


def test_late_answers_are_not_used_and_the_queue_is_bounded() -> None:
    now = [0.0]
    release = threading.Event()

    def predict(requests: list[Request]) -> list[float]:
        release.wait(10)
        return [1.0] * len(requests)

    advice = Advice(predict, deadline_ms=50, max_asked=3, clock=lambda: now[0])
    for request in asked(*"abcde"):
        advice.ask(request)
    assert advice.counts["refused"] == 2
    assert advice.take() == []
    now[0] = 1.0
    assert advice.take() == []
    assert advice.counts["late"] == 3
    release.set()
    advice.close()


class Batching:
    """As `Batcher`: a future at once."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, request: Request, deadline_ms: float | None = None) -> Future[Any]:
        if request.id == "full":
            raise RuntimeError("the queue is full")
        self.futures.append(Future())
        return self.futures[-1]


def test_a_batcher_is_asked_without_waiting() -> None:
    batching = Batching()
    advice = Advice(batching, deadline_ms=60_000)
    for request in asked("a", "b", "full", "c"):
        advice.ask(request)
    wait(advice, 1)
    for _ in range(1000):
        if len(batching.futures) == 3:
            break
        time.sleep(0.005)
    batching.futures[0].set_result(12)
    batching.futures[1].set_exception(OSError("gone"))
    batching.futures[2].cancel()
    batching.futures[2].set_running_or_notify_cancel()
    found = wait(advice, 4)
    assert [(name, forecast.length.tokens) for name, forecast in found] == [("a", 12)]
    assert advice.counts == {"asked": 4, "used": 1, "failed": 3}
    advice.close()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "ten",
        True,
        -1,
        float("inf"),
        float("nan"),
        10**400,
        [1],
        [3, 2, 1],
        [1, "x", 3],
        {},
        object(),
    ],
)
def test_nonsense_is_no_forecast(value: object) -> None:
    assert as_forecast(value) is None


def test_what_makes_sense_is_one() -> None:
    one = as_forecast("12.5")
    assert one is not None
    assert one.length.tokens == 12.5
    bounds = as_forecast((1, 2, 30))
    assert bounds is not None
    assert (bounds.length.low, bounds.length.tokens, bounds.length.high) == (1, 2, 30)
    assert as_forecast(bounds) is bounds
    length = as_forecast(bounds.length)
    assert length is not None
    assert length.length is bounds.length
