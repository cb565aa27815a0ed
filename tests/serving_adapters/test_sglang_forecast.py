"""Forecasts in SGLang's front end: they go into the request, and no predictor holds a request up for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mope.serving_adapters import sglang_forecast
from mope.serving_adapters.forecasts import Advice
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.sglang_forecast import FrontEnd

stop = threading.Event()
SOON = 20.0


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    stop.clear()
    yield
    stop.set()


def raises(requests: list[Any]) -> list[float]:
    raise RuntimeError("no model")


def hangs(requests: list[Any]) -> list[float]:
    stop.wait()
    return [1.0] * len(requests)


def by_words(requests: list[Any]) -> list[float]:
    return [float(len(request.prompt.split())) for request in requests]


def asked(rid: str = "r", text: str | None = "one two three", **more: Any) -> Any:
    words = {"max_new_tokens": 40, **more.pop("words", {})}
    return SimpleNamespace(rid=rid, text=text, input_ids=None, sampling_params=words, stream=True, **more)


async def tokenized(given: Any) -> Any:
    """The engine's own work: some time passes, then a request with its sampling parameters."""
    await asyncio.sleep(0)
    custom = given.sampling_params.get("custom_params")
    return SimpleNamespace(sampling_params=SimpleNamespace(custom_params=custom), rid=given.rid)


MANAGER = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids: " ".join(map(str, ids))))


def served(
    predict: Any, *givens: Any, deadline_ms: float = 5_000.0, **settings: Any
) -> tuple[list[Any], dict[str, int]]:
    """All of these at once; custom parameters of each, and the counts."""
    found = Settings.from_mapping({"deadline_ms": deadline_ms, **settings})
    advice = Advice(predict, deadline_ms=found.deadline_ms, max_asked=found.max_asked)

    async def run() -> list[Any]:
        front = FrontEnd(advice, found)
        return await asyncio.gather(*(front.fill(tokenized(given), MANAGER, given) for given in givens))

    try:
        results = asyncio.run(run())
    finally:
        advice.close()
    return [one.sampling_params.custom_params for one in results], dict(advice.counts)


def test_a_forecast_travels_with_its_request() -> None:
    params, counts = served(by_words, asked("a"), asked("b", "one"), asked("c", "w " * 9))
    assert params == [{"predicted_tokens": [n, n, n]} for n in (3.0, 1.0, 9.0)]
    assert counts == {"asked": 3, "used": 3}


def test_tokens_are_read_as_text() -> None:
    given = asked(text=None)
    given.input_ids = [7, 8, 9, 10]
    assert served(by_words, given)[0] == [{"predicted_tokens": [4.0] * 3}]


def test_other_parameters_stay() -> None:
    given = asked(words={"custom_params": {"thinking_budget": 9}})
    assert served(by_words, given)[0] == [{"thinking_budget": 9, "predicted_tokens": [3.0] * 3}]
    assert given.sampling_params["custom_params"] == {"thinking_budget": 9}


def test_a_forecast_that_was_brought_is_kept() -> None:
    given = asked(words={"custom_params": {"predicted_tokens": 77}})
    params, counts = served(by_words, given)
    assert params == [{"predicted_tokens": 77}]
    assert counts == {}


@pytest.mark.parametrize(
    ("predict", "counted"),
    [
        (raises, "failed"),
        (lambda requests: [], "failed"),
        (lambda requests: ["nonsense"], "garbage"),
        (lambda requests: [float("nan")], "garbage"),
        (lambda requests: [-4], "garbage"),
    ],
)
def test_a_bad_predictor_leaves_the_request_as_it_was(predict: Any, counted: str) -> None:
    params, counts = served(predict, asked(), deadline_ms=SOON)
    assert params == [None]
    assert counts == {"asked": 1, counted: 1}


def test_a_predictor_that_hangs_holds_nobody_for_ever() -> None:
    params, counts = served(hangs, *(asked(str(i)) for i in range(6)), deadline_ms=SOON, max_asked=4)
    assert params == [None] * 6
    assert counts == {"asked": 6, "late": 4, "refused": 2}


def test_an_error_of_the_engine_is_the_engines() -> None:
    async def fails() -> Any:
        await asyncio.sleep(0)
        raise ValueError("too long")

    async def run() -> None:
        advice = Advice(hangs)
        await FrontEnd(advice, Settings()).fill(fails(), MANAGER, asked())

    with pytest.raises(ValueError, match="too long"):
        asyncio.run(run())


def test_embeddings_pass_by() -> None:
    coming, embedding = object(), type("EmbeddingReqInput", (), {"stream": False})()
    assert sglang_forecast.after_tokenize(coming, MANAGER, embedding) is coming
    assert sglang_forecast.after_tokenize(coming, MANAGER, SimpleNamespace(rid="r")) is coming
