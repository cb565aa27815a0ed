"""ASGI middleware: the completions of any OpenAI-compatible server go through a door, everything else passes by.

    app = FairMiddleware(app, Gate(config=GateConfig(slots=64)))
    vllm serve MODEL --middleware mope.serving_adapters.asgi.FairMiddleware

The second way takes its settings from the environment (`door_from_environment`). No dependencies.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, field

from mope.equinox import Refused
from mope.errors import BadInput
from mope.serving_adapters.base import Controller
from mope.serving_adapters.door import Door, Gone, Slot
from mope.serving_adapters.forecasts import make_advice
from mope.serving_adapters.gate import Gate, GateConfig, GateFull
from mope.serving_adapters.http_parts import (
    PROMETHEUS,
    App,
    Message,
    Receive,
    Scope,
    Send,
    answer,
    parsed,
    plain_path,
    read_body,
    refuse,
    tenant_of,
)
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tag_door import Polled, TagDoor, nothing_foreseen
from mope.serving_adapters.tags import FairTagger, tagged
from mope.serving_adapters.wire import Meter, asking_usage, asks_usage, read_request
from mope.settings import apply_settings, parse_settings

GATE_VARIABLE, TAGS_VARIABLE = "MOPE_GATE", "MOPE_TAGS"
BYTES_RETRY_S = 10.0


@dataclass(frozen=True)
class MiddlewareConfig:
    """What goes through the door, and whose it is."""

    paths: tuple[str, ...] = field(
        default=("/v1/chat/completions", "/v1/completions", "/v1/responses"),
        metadata={"help": "POST to these goes through the door"},
    )
    tenant_from: tuple[str, ...] = field(
        default=("header:x-tenant-id", "key", "user"),
        metadata={"help": "header:NAME, key (hashed API key), user, model; the first that is there"},
    )
    ask_usage: bool = field(
        default=True,
        metadata={"help": "ask for the usage at the end of streams, and hide it where the client did not"},
    )
    max_body: int = field(default=32 * 2**20, metadata={"help": "bytes of a request body"})
    max_held: int = field(
        default=2**30, metadata={"help": "bytes of all bodies that wait or are served; more are turned away"}
    )
    metrics_path: str = field(default="/mope/metrics", metadata={"help": "GET here gives Prometheus text"})


class FairMiddleware:
    """One door for one app; without one, what the environment says."""

    def __init__(self, app: App, door: Door | None = None, config: MiddlewareConfig | None = None) -> None:
        self.app = app
        self.door = door_from_environment() if door is None else door
        self.config = config or MiddlewareConfig()
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["method"] == "GET" and scope["path"] == self.config.metrics_path:
            await answer(send, 200, self.door.metrics_text(), content_type=PROMETHEUS)
        elif scope["method"] == "POST" and plain_path(scope["path"]) in self.config.paths:
            await self._through(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _through(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, and hold it only where there is room."""
        try:
            body = await read_body(receive, self.config.max_body)
        except BadInput as error:
            await refuse(send, 413, str(error))
            return
        if body is None:
            return
        if self._held + len(body) > self.config.max_held:
            await refuse(send, 429, "too many bytes are waiting", BYTES_RETRY_S)
            return
        self._held += len(body)
        try:
            await self._admit(scope, receive, send, body)
        finally:
            self._held -= len(body)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Wait at the door, serve, count."""
        asked = parsed(body)
        request = read_request(asked, tenant_of(scope, asked, self.config.tenant_from))
        gone = asyncio.ensure_future(receive())
        try:
            async with self.door.slot(request, gone) as slot:
                hide, changed = self._changed(asked, body, slot.priority)
                await self._serve(slot, scope, Replay(changed, gone), send, hide)
        except Gone:
            return
        except GateFull as full:
            await refuse(send, 429, str(full), full.retry_after_s)
        except Refused as refused:
            await refuse(send, 429, str(refused), 60)
        except BadInput as error:
            await refuse(send, 400, str(error))
        finally:
            gone.cancel()

    def _changed(self, asked: object, body: bytes, priority: int | None) -> tuple[bool, bytes]:
        """Whether the usage is ours to hide, and the body to send on."""
        if not isinstance(asked, dict):
            return False, body
        hide = self.config.ask_usage and "input" not in asked and not asks_usage(asked)
        changed = asking_usage(asked) if hide else asked
        if priority is not None:
            changed = tagged(changed, priority)
        return hide, body if changed is asked else json.dumps(changed).encode()

    async def _serve(self, slot: Slot, scope: Scope, replay: Replay, send: Send, hide: bool) -> None:
        status, meter = 0, Meter(False)

        async def counted(message: Message) -> None:
            nonlocal status, meter
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.lower(): value for name, value in message.get("headers", ())}
                streamed = headers.get(b"content-type", b"").startswith(b"text/event-stream")
                meter = Meter(streamed, hide and b"content-length" not in headers)
            elif message["type"] == "http.response.body" and 0 < status < 400:
                body = meter.feed(message.get("body", b""), last=not message.get("more_body", False))
                message = {**message, "body": body}
                slot.progress(meter.tokens)
            await send(message)

        await self.app(replay.scope(scope), replay.receive, counted)
        usage = meter.usage() if 0 < status < 400 else None
        if usage is None and not 0 < status < 400:
            slot.fail()
        elif usage is not None:
            slot.finish(usage)


class Replay:
    """A request whose body was read already: told once more, then whatever comes next."""

    def __init__(self, body: bytes, after: asyncio.Future[Message]) -> None:
        self._body: bytes | None = body
        self._length, self._after = len(body), after

    def scope(self, scope: Scope) -> Scope:
        """The scope with the true length of the body, and without a wish for compression, which hides tokens."""
        changed = (b"content-length", b"transfer-encoding", b"accept-encoding")
        kept = [(name, value) for name, value in scope["headers"] if name.lower() not in changed]
        return {**scope, "headers": [*kept, (b"content-length", str(self._length).encode())]}

    async def receive(self) -> Message:
        """ASGI's receive."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await asyncio.shield(self._after)


def door_from_environment() -> Door:
    """As MOPE_EQUINOX (see `Settings`) and one of the others say.

    MOPE_TAGS=vllm: tags for that engine. Otherwise a gate, with MOPE_GATE as in `slots=64,max_waiting=500`.
    """
    settings = Settings.from_environment()
    advice = make_advice(settings)
    if engine := os.environ.get(TAGS_VARIABLE, "").strip():
        foresees = nothing_foreseen if advice is None else Polled(advice, settings.deadline_ms)
        return TagDoor(FairTagger(engine, Controller(settings)), foresees)
    pairs = [pair for pair in os.environ.get(GATE_VARIABLE, "").split(",") if pair.strip()]
    config = apply_settings(GateConfig(), parse_settings(pairs, GateConfig))
    return Gate(Controller(settings, advice=advice), config)
