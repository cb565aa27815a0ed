"""What `mope serve` runs: a fair proxy before one OpenAI-compatible server, and forecasts and tags as a service.

Start reading at `Service`. Needs the extra `serve`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mope.errors import BadInput, MopeError
from mope.extras import require
from mope.serving_adapters.asgi import FairMiddleware, MiddlewareConfig
from mope.serving_adapters.base import Controller
from mope.serving_adapters.door import Door
from mope.serving_adapters.forecasts import Advice
from mope.serving_adapters.forward import Forward
from mope.serving_adapters.gate import Gate, GateConfig
from mope.serving_adapters.http_parts import (
    PROMETHEUS,
    App,
    Receive,
    Scope,
    Send,
    answer,
    parsed,
    read_body,
    refuse,
    tenant_of,
)
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tag_door import TagDoor, nothing_foreseen
from mope.serving_adapters.tags import FairTagger
from mope.serving_adapters.wire import read_request
from mope.types import Forecast, Request, Usage

if TYPE_CHECKING:
    from mope.forecast import Forecaster

SMALL_BODY = 2**20
PATIENT_MS = 10_000.0  # for a forecast that is all that is asked for
EVENTS = ("begin", "progress", "finish", "cancel")


@dataclass(frozen=True)
class ServeConfig:
    """One proxy. `tags` names the dialect of an engine that sorts by priority; without it, a gate holds back."""

    upstream: str
    host: str = "127.0.0.1"
    port: int = 8700
    tags: str = ""
    gate: GateConfig = field(default_factory=GateConfig)
    settings: Settings = field(default_factory=Settings)
    middleware: MiddlewareConfig = field(default_factory=lambda: MiddlewareConfig(metrics_path="/metrics"))


class Foresight:
    """A bundle's forecasts for coroutines and for `Advice`: batched, late ones dropped, failures counted."""

    def __init__(self, forecaster: Forecaster, deadline_ms: float) -> None:
        from mope.predictor.batcher import Batcher, BatcherConfig

        self.forecaster, self.deadline_ms = forecaster, deadline_ms
        self.batcher = Batcher.of(forecaster.bundle, BatcherConfig(deadline_ms=deadline_ms))
        self.counts: Counter[str] = Counter()
        forecaster.forecast("Hello")  # the first takes longest, and nobody should wait for it

    def submit(self, request: Request, deadline_ms: float | None = None) -> Future[Forecast]:
        """A future of the whole forecast; raises as `Batcher.submit` does."""
        found: Future[Forecast] = Future()
        self.batcher.submit(request, deadline_ms).add_done_callback(
            lambda length: self._whole(length, request, found)
        )
        return found

    def _whole(self, length: Future[Any], request: Request, found: Future[Forecast]) -> None:
        error = length.exception() if not length.cancelled() else MopeError("cancelled")
        if not found.set_running_or_notify_cancel():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(self.forecaster.of_length(length.result(), request))

    async def __call__(self, request: Request, deadline_ms: float | None = None) -> Forecast | None:
        """The forecast, or None where it failed or did not come in time."""
        deadline_ms = deadline_ms or self.deadline_ms
        try:
            future = asyncio.wrap_future(self.submit(request, deadline_ms))
        except MopeError:
            self.counts["refused"] += 1
            return None
        try:
            await asyncio.wait({future}, timeout=deadline_ms / 1e3)
            if not future.done() or future.exception() is not None:
                self.counts["late" if not future.done() else "failed"] += 1
                return None
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """End the batcher's thread."""
        self.batcher.close(drain=False)


class Service:
    """The ASGI app: /v1/* through the door to the server behind, and our own routes beside it."""

    def __init__(self, config: ServeConfig, foresight: Foresight | None = None) -> None:
        self.config, self.foresight = config, foresight
        foresees = foresight or nothing_foreseen
        self.tagger = FairTagger(config.tags or "vllm", Controller(config.settings))
        self.door: Door = TagDoor(self.tagger, foresees) if config.tags else self._gate()
        self.forward = Forward(config.upstream, config.middleware.max_body)
        self.proxy: App = FairMiddleware(self.forward, self.door, config.middleware)
        self.foresees = foresees

    def _gate(self) -> Gate:
        deadline_ms = self.config.settings.deadline_ms
        advice = None if self.foresight is None else Advice(self.foresight, deadline_ms=deadline_ms)
        return Gate(Controller(self.config.settings, advice=advice), self.config.gate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        route = (scope["method"], scope["path"])
        if route == ("GET", "/healthz"):
            await answer(send, 200, json.dumps({"status": "ok"}))
        elif route == ("GET", "/tag/metrics"):
            await answer(send, 200, self.tagger.metrics_text(), content_type=PROMETHEUS)
        elif route in (("POST", "/forecast"), ("POST", "/tag"), ("POST", "/tag/report")):
            await self._ours(scope, receive, send)
        else:
            await self.proxy(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.forward.aclose()
                if self.foresight is not None:
                    self.foresight.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _ours(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The routes of the service: a JSON object in, one out."""
        try:
            body = await read_body(receive, SMALL_BODY)
            asked = parsed(body or b"")
            if not isinstance(asked, dict):
                raise BadInput("a body that is no JSON object", "an object")
            calls = {"/forecast": self._forecast, "/tag": self._tag, "/tag/report": self._report}
            found = await calls[scope["path"]](scope, asked)
        except BadInput as error:
            await refuse(send, 400, str(error))
            return
        await answer(send, 200, json.dumps(found))

    async def _forecast(self, scope: Scope, asked: dict[str, Any]) -> dict[str, Any]:
        request = read_request(asked, "")
        found = None if self.foresight is None else await self.foresight(request, PATIENT_MS)
        return {"forecast": None if found is None else _plain(found)}

    async def _tag(self, scope: Scope, asked: dict[str, Any]) -> dict[str, Any]:
        """A tag for a request that a gateway sends itself."""
        tenant = asked.get("tenant") or tenant_of(scope, asked, self.config.middleware.tenant_from)
        request = read_request(asked, str(tenant))
        size = asked.get("prompt_tokens")
        if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
            request = replace(request, prompt_tokens=size)
        request = replace(request, id=_word(asked, "id"))
        forecast = await self.foresees(request)
        priority = self.tagger.tag(request, time.monotonic(), forecast)
        return {
            "id": request.id,
            "priority": priority,
            "forecast": None if forecast is None else _plain(forecast),
        }

    async def _report(self, scope: Scope, asked: dict[str, Any]) -> dict[str, Any]:
        """What became of a tagged request: begin, progress, finish or cancel."""
        name, event, now = _word(asked, "id"), asked.get("event"), time.monotonic()
        if event not in EVENTS:
            raise BadInput(f"event {str(event)[:40]!r}", f"one of {', '.join(EVENTS)}")
        made = asked.get("output_tokens", 0)
        if not isinstance(made, int) or isinstance(made, bool):
            raise BadInput(f"output_tokens {str(made)[:40]!r}", "a whole number")
        if event == "begin":
            self.tagger.begin(name, now)
        elif event == "progress":
            self.tagger.progress(name, made, now)
        elif event == "finish":
            self.tagger.finish(name, Usage(made), now)
        else:
            self.tagger.cancel(name, now)
        return {"id": name, "open": len(self.tagger)}


def _word(asked: dict[str, Any], name: str) -> str:
    found = asked.get(name)
    if not (isinstance(found, str) and 0 < len(found) <= 256):
        raise BadInput(f"{name} {str(found)[:40]!r}", "a text of 1 to 256 characters")
    return found


def _plain(forecast: Forecast) -> dict[str, Any]:
    length = forecast.length
    return {
        "tokens": length.tokens, "low": length.low, "high": length.high, "bucket": length.bucket,
        **{name: value for name, value in asdict(forecast).items() if name != "length" and value is not None},
    }  # fmt: skip


def make_foresight(settings: Settings) -> Foresight | None:
    """The predictor that settings name; None where they name none. Raises `BadInput` on a wrong name."""
    if not settings.predictor:
        return None
    from mope.forecast import Forecaster

    bundle = None if settings.predictor == "shipped" else settings.predictor
    return Foresight(Forecaster(bundle, settings.hardware or None), settings.deadline_ms)


def serve(config: ServeConfig) -> None:
    """Run until interrupted. Raises `MissingExtra` without the extra `serve`."""
    require("serve", "serving")
    import uvicorn

    service = Service(config, make_foresight(config.settings))
    with suppress(KeyboardInterrupt):
        uvicorn.run(service, host=config.host, port=config.port, log_level="warning", timeout_keep_alive=30)
