"""An ASGI app that hands every request on to one OpenAI-compatible server, streaming both ways that need it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from mope.errors import BadInput, ConfigError
from mope.extras import require
from mope.serving_adapters.http_parts import Receive, Scope, Send, read_body, refuse

if TYPE_CHECKING:
    import httpx2

HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
}  # fmt: skip
OURS = HOP_BY_HOP | {b"host", b"content-length", b"accept-encoding"}
CONNECT_S = 10.0


class Forward:
    """To `upstream`, as in http://localhost:8000. Answers 502 where that cannot be reached; needs the extra `serve`.

    A client that goes away ends its request upstream too, which is how engines learn to stop.
    """

    def __init__(self, upstream: str, max_body: int = 32 * 2**20) -> None:
        if not upstream.startswith(("http://", "https://")):
            raise ConfigError(f"upstream {upstream!r}", "http://HOST:PORT or https://HOST")
        require("serve", "forwarding")
        import httpx2

        self.upstream, self.max_body = upstream.rstrip("/"), max_body
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
        timeout = httpx2.Timeout(None, connect=CONNECT_S)
        self.client = httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            body = await read_body(receive, self.max_body)
        except BadInput as error:
            await refuse(send, 413, str(error))
            return
        if body is None:
            return
        gone = asyncio.ensure_future(receive())
        work = asyncio.ensure_future(self._relay(self._request(scope, body), send))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            gone.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    def _request(self, scope: Scope, body: bytes) -> httpx2.Request:
        path = scope.get("raw_path") or scope["path"].encode()
        query = b"?" + scope["query_string"] if scope.get("query_string") else b""
        url = f"{self.upstream}{(path + query).decode('latin-1')}"
        headers = [*_without(scope["headers"], OURS), (b"accept-encoding", b"identity")]
        return self.client.build_request(scope["method"], url, headers=headers, content=body)

    async def _relay(self, request: httpx2.Request, send: Send) -> None:
        import httpx2

        begun = False
        try:
            response = await self.client.send(request, stream=True)
            try:
                headers = _without(response.headers.raw, HOP_BY_HOP)
                start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
                await send(start)
                begun = True
                async for data in response.aiter_raw():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                await response.aclose()
        except httpx2.HTTPError as error:
            if begun:  # too late for a status: let the server cut the connection, so that the client sees it
                raise
            await refuse(send, 502, f"upstream: {type(error).__name__}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()


def _without(headers: Iterable[tuple[bytes, bytes]], names: set[bytes]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in names]
