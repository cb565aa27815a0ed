"""ASGI middleware: the completions of any OpenAI-compatible server go through a door, everything else passes by.

    app = FairMiddleware(app, Gate(config=GateConfig(slots=64)))
    vllm serve MODEL --middleware mope.serving_adapters.asgi.FairMiddleware

The second way takes its settings from the environment (`door_from_environment`). No dependencies.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from hashlib import blake2b
from posixpath import normpath
from typing import Any

from mope.equinox import Refused
from mope.errors import BadInput
from mope.serving_adapters.base import Controller
from mope.serving_adapters.door import Door, Gone, Slot
from mope.serving_adapters.forecasts import make_advice
from mope.serving_adapters.gate import Gate, GateConfig, GateFull
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tag_door import Polled, TagDoor, nothing_foreseen
from mope.serving_adapters.tags import FairTagger, tagged
from mope.serving_adapters.wire import Meter, asking_usage, asks_usage, read_request
from mope.settings import apply_settings, parse_settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

GATE_VARIABLE, TAGS_VARIABLE = "MOPE_GATE", "MOPE_TAGS"
JSON, PROMETHEUS = b"application/json", b"text/plain; version=0.0.4"


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
    metrics_path: str = field(default="/mope/metrics", metadata={"help": "GET here gives Prometheus text"})


class FairMiddleware:
    """One door for one app; without one, what the environment says."""

    def __init__(self, app: App, door: Door | None = None, config: MiddlewareConfig | None = None) -> None:
        self.app = app
        self.door = door or door_from_environment()
        self.config = config or MiddlewareConfig()

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
        """Read the body, wait at the door, serve, count."""
        try:
            body = await read_body(receive, self.config.max_body)
        except BadInput as error:
            await refuse(send, 413, str(error))
            return
        if body is None:
            return
        asked = parsed(body)
        request = read_request(asked, tenant_of(scope, asked, self.config.tenant_from))
        gone = asyncio.ensure_future(receive())
        try:
            async with self.door.slot(request, gone) as slot:
                hide, body = self._changed(asked, body, slot.priority)
                await self._serve(slot, scope, Replay(body, gone), send, hide)
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


def plain_path(path: str) -> str:
    """As servers and HTTP clients may read it: no way around the door through //, /./ or /x/../."""
    return normpath("/" + path.lstrip("/"))


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


async def read_body(receive: Receive, most: int) -> bytes | None:
    """The whole body; None where the client went away. Raises `BadInput` on one that is too large."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > most:
            raise BadInput("a request body that is too large", f"at most {most} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def parsed(body: bytes) -> object:
    """The JSON value of a body; None where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def tenant_of(scope: Scope, body: object, carriers: tuple[str, ...]) -> str:
    """Whose request it is, by the first carrier that is there; empty where none is."""
    headers = {name.lower(): value for name, value in scope["headers"]}
    for carrier in carriers:
        kind, _, name = carrier.partition(":")
        found: object = None
        if kind == "header":
            found = headers.get(name.lower().encode("latin-1"), b"").decode("latin-1")
        elif kind == "key":
            found = hashed_key(headers.get(b"authorization") or headers.get(b"x-api-key") or b"")
        elif isinstance(body, dict):
            found = body.get(kind)
        if isinstance(found, str) and found:
            return found
    return ""


def hashed_key(header: bytes) -> str:
    """A name for an API key that does not give it away; empty for none."""
    key = header.strip()
    return f"key-{blake2b(key, digest_size=8).hexdigest()}" if key else ""


async def answer(
    send: Send, status: int, body: str, *, content_type: bytes = JSON, headers: tuple[Any, ...] = ()
) -> None:
    """A whole response."""
    data = body.encode("utf-8", "replace")
    found = [(b"content-type", content_type), (b"content-length", str(len(data)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": found})
    await send({"type": "http.response.body", "body": data})


async def refuse(send: Send, status: int, reason: str, retry_after_s: float | None = None) -> None:
    """An error in the form OpenAI's clients read."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    error = {"error": {"message": reason, "type": kind, "code": status}}
    wait = () if retry_after_s is None else ((b"retry-after", str(round(retry_after_s)).encode()),)
    await answer(send, status, json.dumps(error), headers=wait)
