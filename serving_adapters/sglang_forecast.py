"""Forecasts asked in SGLang's front end, so that they travel with the request and every rank reads the same one.

Asked for beside the tokenizing, with a deadline: a predictor that is late, fails or talks nonsense delays a request
by `deadline_ms` at most, and then it goes on without a forecast.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from mope.serving_adapters.forecasts import Advice, make_advice
from mope.serving_adapters.settings import Settings
from mope.types import Forecast, Request

log = logging.getLogger("mope.adapters")
TARGET = "sglang.srt.managers.tokenizer_manager.TokenizerManager._tokenize_one_request"


class FrontEnd:
    """One predictor for the requests of one event loop."""

    def __init__(self, advice: Advice, settings: Settings) -> None:
        self.advice, self.settings = advice, settings
        self._futures: dict[str, asyncio.Future[Forecast]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        advice.on_found = self._on_found

    async def ask(self, request: Request, prompt: Callable[[], str] | None = None) -> Forecast | None:
        """The forecast of a request, if it is there by the deadline."""
        self._loop = asyncio.get_running_loop()
        future = self._loop.create_future()
        if not self.advice.ask(request, prompt):
            return None
        self._futures[request.id] = future
        try:
            return await asyncio.wait_for(future, self.settings.deadline_ms / 1e3)
        except asyncio.TimeoutError:
            return None
        finally:
            del self._futures[request.id]
            self._collect()

    def _on_found(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        for request_id, forecast in self.advice.take():
            future = self._futures.get(request_id)
            if future is not None and not future.done():
                future.set_result(forecast)

    async def fill(self, coming: Awaitable[Any], manager: Any, given: Any) -> Any:
        """The tokenized request that is `coming`, with a forecast where it brought none."""
        key = self.settings.forecast_key
        words = given.sampling_params if isinstance(given.sampling_params, dict) else {}
        if key in (words.get("custom_params") or {}) or not isinstance(given.rid, str):
            return await coming
        asked = asyncio.ensure_future(self.ask(_request(given, words), _prompt(manager, given)))
        try:
            tokenized = await coming
        except BaseException:
            asked.cancel()
            raise
        forecast = await asked
        if forecast is not None:
            length, params = forecast.length, tokenized.sampling_params
            said = [length.low, length.tokens, length.high]
            params.custom_params = {**(params.custom_params or {}), key: said}
        return tokenized


def _request(given: Any, words: dict[str, Any]) -> Request:
    text = given.text if isinstance(given.text, str) else ""
    most = words.get("max_new_tokens")
    return Request(text, given.rid, max_tokens=most if isinstance(most, int) and most > 0 else None)


def _prompt(manager: Any, given: Any) -> Callable[[], str] | None:
    """What makes the text of a request that came as tokens; called in the predictor's thread."""
    if isinstance(given.text, str) or not given.input_ids or manager.tokenizer is None:
        return None
    return lambda: str(manager.tokenizer.decode(list(given.input_ids)))


@cache
def front_end() -> FrontEnd | None:
    """The predictor that the settings name, loaded once a process. Raises `BadInput` on a wrong name."""
    settings = Settings.from_environment()
    advice = make_advice(settings)
    return None if advice is None else FrontEnd(advice, settings)


def after_tokenize(result: Any, manager: Any, given: Any, *args: Any, **named: Any) -> Any:
    """What the engine awaits in place of its own coroutine; embeddings have no length to foresee."""
    if not hasattr(given, "stream") or type(given).__name__.startswith("Embedding"):
        return result
    found = front_end()
    return result if found is None else found.fill(result, manager, given)
