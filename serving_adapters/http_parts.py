"""What our ASGI apps share: bodies in, small answers out, whose request it is."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import blake2b
from posixpath import normpath
from typing import Any

from mope.errors import BadInput

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON, PROMETHEUS = b"application/json", b"text/plain; version=0.0.4"


def plain_path(path: str) -> str:
    """As servers and HTTP clients may read it: no way around the door through //, /./ or /x/../."""
    return normpath("/" + path.lstrip("/"))


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
