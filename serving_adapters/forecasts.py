"""Forecasts asked off the critical path: nothing waits for one and nothing fails because of one.

Start reading at `Advice`. The engine's thread asks and takes; one thread of our own talks to the predictor.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from importlib import import_module
from math import isfinite
from time import monotonic
from typing import Any, Protocol, cast, runtime_checkable

from mope.errors import ConfigError
from mope.serving_adapters.settings import Settings
from mope.types import Forecast, LengthForecast, Request

MOST = 2.0**31
BATCH = 64

Predict = Callable[[list[Request]], Sequence[Any]]
"""Requests -> what `as_forecast` takes for each: `Forecaster.forecast`, `MoPE.predict`."""


@runtime_checkable
class Submits(Protocol):
    """What answers one by one, as `mope.predictor.batcher.Batcher` does."""

    def submit(self, request: Request, deadline_ms: float | None = None) -> Future[Any]:
        """A future of the forecast."""


def as_forecast(value: object) -> Forecast | None:
    """What a predictor or a client says of a length, as a `Forecast`; None where it makes no sense.

    Taken: a `Forecast`, a `LengthForecast`, a number of tokens or its text, (low, tokens, high).
    """
    if type(value) is int or type(value) is float:  # what nearly all are
        return Forecast.of_tokens(float(value)) if 0 <= value < MOST else None
    if isinstance(value, Forecast):
        return value if _is_length(value.length.tokens) else None
    if isinstance(value, LengthForecast):
        return Forecast(value) if _is_length(value.tokens) else None
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        found = [_number(item) for item in value[:4]]
        if len(found) == 3 and None not in found and found[0] <= found[1] <= found[2]:  # type: ignore[operator]
            return Forecast.of_tokens(found[1], found[0], found[2])  # type: ignore[arg-type]
        return None
    tokens = _number(value)
    return None if tokens is None else Forecast.of_tokens(tokens)


def _number(value: object) -> float | None:
    if isinstance(value, str):
        if len(value) > 32:
            return None
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if _is_length(value) else None  # type: ignore[arg-type]


def _is_length(value: object) -> bool:
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return False
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return isfinite(number) and 0 <= number < MOST


class Advice:
    """Asks `source` for forecasts, and has those that came within `deadline_ms` ready to be taken.

    `counts`: asked = used + late + failed + garbage + refused + those still open. At most `max_asked` are open;
    beyond, requests go without. A source that hangs holds up only its own thread, which never keeps a process alive.
    `on_found` is called in another thread whenever answers have come.
    """

    def __init__(
        self,
        source: Predict | Submits,
        *,
        deadline_ms: float = 50.0,
        max_asked: int = 1024,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._source, self._deadline_ms, self._most, self._clock = source, deadline_ms, max_asked, clock
        self._open: dict[str, float] = {}  # id -> deadline, in the order asked
        self._asked: deque[tuple[Request, str | Callable[[], str] | None]] = deque()
        self._found: deque[tuple[str, object, float]] = deque()  # filled by other threads
        self._wake = threading.Event()
        self._closed = False
        self.on_found: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._work, name="mope-advice", daemon=True)
        self._thread.start()

    def ask(self, request: Request, prompt: str | Callable[[], str] | None = None) -> bool:
        """Ask for a forecast of a request, False where too many are asked for already.

        `prompt` replaces the request's own; a callable is called in our thread.
        """
        self.counts["asked"] += 1
        if len(self._asked) >= self._most or len(self._open) >= self._most or request.id in self._open:
            self.counts["refused"] += 1
            return False
        self._open[request.id] = self._clock() + self._deadline_ms / 1e3
        self._asked.append((request, prompt))
        self._wake.set()
        return True

    def take(self) -> list[tuple[str, Forecast]]:
        """Forecasts that have come since the last call, each before its deadline. Never waits."""
        ready: list[tuple[str, Forecast]] = []
        if not self._open and not self._found:
            return ready
        while self._found:
            request_id, value, came = self._found.popleft()
            deadline = self._open.pop(request_id, None)
            if deadline is None:
                continue
            forecast = None if isinstance(value, BaseException) else as_forecast(value)
            if isinstance(value, BaseException):
                self.counts["failed"] += 1
            elif came > deadline:
                self.counts["late"] += 1
            elif forecast is None:
                self.counts["garbage"] += 1
            else:
                self.counts["used"] += 1
                ready.append((request_id, forecast))
        self._expire()
        return ready

    def _expire(self) -> None:
        now = self._clock()
        while self._open:
            request_id, deadline = next(iter(self._open.items()))
            if deadline > now:
                return
            del self._open[request_id]
            self.counts["late"] += 1

    def close(self) -> None:
        """Ask no more. Does not wait for a source that hangs."""
        self._closed = True
        self._wake.set()

    def _work(self) -> None:
        """The thread: batches of what was asked, until closed."""
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._asked and not self._closed:
                self._answer([self._asked.popleft() for _ in range(min(BATCH, len(self._asked)))])
                self.on_found()
            if self._closed:
                return

    def _answer(self, batch: list[tuple[Request, str | Callable[[], str] | None]]) -> None:
        requests = []
        for request, prompt in batch:
            try:
                requests.append(_with_prompt(request, prompt))
            except Exception as error:  # noqa: BLE001 - a tokenizer's error belongs to its request
                self._found.append((request.id, error, self._clock()))
        if isinstance(self._source, Submits):
            for request in requests:
                self._submit(self._source, request)
        elif requests:
            self._predict(self._source, requests)

    def _predict(self, predict: Predict, requests: list[Request]) -> None:
        try:
            values: Sequence[object] = list(predict(requests))
            if len(values) != len(requests):
                raise ValueError(f"{len(values)} forecasts for {len(requests)} requests")
        except BaseException as error:  # noqa: BLE001 - whatever a predictor raises, serving goes on
            if len(requests) > 1:  # only the culprit goes without
                for request in requests:
                    self._predict(predict, [request])
                return
            values = [error]
        now = self._clock()
        self._found.extend((request.id, value, now) for request, value in zip(requests, values, strict=True))

    def _submit(self, source: Submits, request: Request) -> None:
        def done(future: Future[Any]) -> None:
            error = None if future.cancelled() else future.exception()
            value = ValueError("cancelled") if future.cancelled() else error or future.result()
            self._found.append((request.id, value, self._clock()))
            self.on_found()

        try:
            source.submit(request, self._deadline_ms).add_done_callback(done)
        except BaseException as error:  # noqa: BLE001 - whatever a predictor raises, serving goes on
            self._found.append((request.id, error, self._clock()))


def _with_prompt(request: Request, prompt: str | Callable[[], str] | None) -> Request:
    if prompt is None:
        return request
    return replace(request, prompt=prompt if isinstance(prompt, str) else prompt())


def make_advice(settings: Settings) -> Advice | None:
    """The advice that settings name; None where they name no predictor. Raises `BadInput` on a wrong name."""
    if not settings.predictor:
        return None
    return Advice(_source(settings), deadline_ms=settings.deadline_ms, max_asked=settings.max_asked)


def _source(settings: Settings) -> Predict | Submits:
    """A function `package.module:name`, or the forecasts of a bundle on the hardware that is set."""
    module, colon, name = settings.predictor.partition(":")
    if colon:
        try:
            return cast(Predict, getattr(import_module(module), name))
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"predictor {settings.predictor!r} ({error})", "package.module:function"
            ) from None
    from mope.forecast import Forecaster

    bundle = None if settings.predictor == "shipped" else settings.predictor
    return Forecaster(bundle, settings.hardware or None).forecast
