"""What stands before an engine: a door that requests go through, holding a slot while they are served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from mope.errors import MopeError
from mope.serving_adapters.registry import Adapter
from mope.types import Request, Usage


class Gone(MopeError):
    """The client went away while its request waited."""


@dataclass(slots=True, eq=False)
class Slot:
    """A request that is being served. `priority` is what to send with it, where the door gives tags."""

    request: Request
    begun_s: float
    told: Callable[[Slot], None]
    priority: int | None = None
    output_tokens: int = 0
    usage: Usage | None = None
    failed: bool = False

    def progress(self, output_tokens: int) -> None:
        """`output_tokens` are there so far; fewer than before changes nothing."""
        if output_tokens > self.output_tokens:
            self.output_tokens = output_tokens
            self.told(self)

    def finish(self, usage: Usage) -> None:
        """What it really was, known before the slot is left."""
        self.usage = usage

    def fail(self) -> None:
        """The engine did not serve it: only what `progress` told is charged."""
        self.failed = True


class Door(Protocol):
    """`Gate` and `TagDoor`."""

    def slot(
        self, request: Request, gone: asyncio.Future[Any] | None = None
    ) -> AbstractAsyncContextManager[Slot]:
        """Hold a slot while the request is served; raises `Gone` where `gone` is done before it may start."""

    def metrics_text(self) -> str:
        """Prometheus text."""


ADAPTER = Adapter(
    name="gate",
    about="any OpenAI-compatible server: an admission gate as proxy, ASGI middleware or asyncio context",
    use="mope serve --upstream URL --gate slots=64",
)
