"""A tiny OpenAI-compatible server as an ASGI app, and servers on real sockets for tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import uvicorn


class FakeOpenAI:
    """Streams or answers `max_tokens` words; remembers what came. `slots` requests run at once, by priority."""

    def __init__(self, slots: int = 1000, by_priority: bool = False) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.order: list[str] = []
        self.cut: list[str] = []
        self.most = self.running = 0
        self.go = asyncio.Event()
        self.go.set()
        self.pause_s = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["method"] == "GET":
            await self._answer(send, 200, {"data": [{"id": "tiny"}], "query": scope["query_string"].decode()})
            return
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            await self._answer(send, 400, {"error": {"message": "no request"}})
            return
        self.bodies.append(asked)
        self.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
        if asked.get("model") == "missing":
            await self._answer(send, 404, {"error": {"message": "no such model"}})
            return
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(str(asked.get("user", "")))
        gone = asyncio.ensure_future(receive())
        try:
            await self._complete(asked, gone, send)
        finally:
            self.running -= 1
            gone.cancel()

    async def _complete(self, asked: dict[str, Any], gone: asyncio.Future[Any], send: Any) -> None:
        count = asked.get("max_tokens", 4)
        usage = {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
        if not asked.get("stream"):
            await self.go.wait()
            await asyncio.sleep(self.pause_s)
            text = " ".join(f"w{n}" for n in range(count))
            await self._answer(send, 200, {"choices": [{"text": text}], "usage": usage})
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
            }
        )
        for n in range(count):
            await self.go.wait()
            await asyncio.sleep(self.pause_s)
            if gone.done():
                self.cut.append(str(asked.get("user", "")))
                return
            chunk = {"choices": [{"index": 0, "delta": {"content": f"w{n} "}}]}
            data = f"data: {json.dumps(chunk)}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if asked.get("stream_options", {}).get("include_usage"):
            data = f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _answer(self, send: Any, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})


@contextlib.asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """The app on a free port of this machine; its URL."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", lifespan="on", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server._serve() if hasattr(server, "_serve") else server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
