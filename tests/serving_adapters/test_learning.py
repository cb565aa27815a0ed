"""A predictor that is always four times too long, and an engine that learns it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from mope.adapt.online import OnlineCalibrator
from mope.serving_adapters.base import Controller
from mope.serving_adapters.forecasts import Advice
from mope.serving_adapters.learning import Learner
from mope.serving_adapters.settings import Settings
from mope.types import Forecast, LengthForecast, Request, Span

LEVELS = (0.1, 0.5, 0.9)


def foretold(tokens: float) -> LengthForecast:
    low, high = tokens / 2, tokens * 2
    return LengthForecast(tokens, low, high, LEVELS, (low, tokens, high), "", (0.0, 0.0, 0.0))


class FourTimes:
    """A predictor that answers at once, in the thread that asks."""

    def submit(self, request: Request, deadline_ms: float | None = None) -> Future[Any]:
        found: Future[Any] = Future()
        found.set_result(foretold(400.0))
        return found


def serve(controller: Controller, number: int, length: int, reason: str = "stop") -> float:
    """One request from arrival to its end; the tokens it was believed to make."""
    name = f"r{number}"
    controller.arrive(name, "a", 10)
    advice = controller.advice
    assert advice is not None
    while advice._asked:
        advice._answer([advice._asked.popleft()])
    controller.step()
    job = controller.scheduler.jobs[name]
    assert job.tokens is not None
    controller.admit(name)
    controller.finish(name, length, reason)
    return job.tokens


@pytest.fixture
def advice(monkeypatch: pytest.MonkeyPatch) -> Advice:
    """One that is asked and answers in the test's thread."""
    monkeypatch.setattr(Advice, "_work", lambda self: None)
    return Advice(FourTimes(), deadline_ms=60_000.0)


def test_forecasts_come_to_be_what_the_engine_answers(advice: Advice) -> None:
    controller = Controller(Settings(clock="steps"), advice=advice)
    believed = [serve(controller, number, 100) for number in range(60)]
    assert believed[0] == 400.0
    assert believed[-1] == pytest.approx(100.0, rel=0.1)
    assert controller.failures == {}


def test_it_can_be_switched_off(advice: Advice) -> None:
    controller = Controller(Settings(clock="steps", learn=False), advice=advice)
    assert {serve(controller, number, 100) for number in range(20)} == {400.0}


def test_a_cut_answer_is_at_least_so_long(advice: Advice) -> None:
    """Cut at 100 of the foretold 400: that says nothing against 400."""
    controller = Controller(Settings(clock="steps"), advice=advice)
    ends = [(100, "FINISHED_LENGTH_CAPPED"), (400, "stop")] * 40
    believed = [serve(controller, number, *end) for number, end in enumerate(ends)]
    assert believed[-1] == pytest.approx(400.0, rel=0.1)


def test_what_stood_for_the_old_length_goes_and_rates_stay() -> None:
    learner = Learner()
    span = Span(1.0, 1.0, 1.0)
    said = Forecast(foretold(400.0), 10, ttft_s=0.2, tpot_s=span, latency_s=span, cost=span)
    assert learner.correct(Request("", "first"), said) is said
    learner.finish("first", 100, "stop")
    found = learner.correct(Request("", "second"), said)
    assert found.length.tokens < 400.0
    assert (found.ttft_s, found.tpot_s, found.latency_s, found.cost) == (0.2, span, None, None)


def test_max_tokens_cut_an_answer_and_what_was_given_up_teaches_nothing() -> None:
    learner = Learner(online := OnlineCalibrator())
    for name, most in (("cut", 100), ("gone", None)):
        learner.correct(Request("", name, max_tokens=most), Forecast(foretold(400.0)))
    learner.finish("cut", 100, "stop")
    learner.forget("gone")
    learner.finish("gone", 1, "stop")
    assert online.health().seen == 1


def test_a_forecast_out_of_order_is_left_as_it_is() -> None:
    odd = Forecast(LengthForecast(5.0, 9.0, 1.0, (), (), "", (0.0, 0.0, 0.0)))
    assert Learner().correct(Request("", "r"), odd) is odd
