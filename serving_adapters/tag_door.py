"""A door that holds nobody back: it gives each request its tag, and lets the engine sort."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from mope.serving_adapters.door import Slot
from mope.serving_adapters.forecasts import Advice
from mope.serving_adapters.tags import FairTagger
from mope.types import Forecast, Request, Usage

Foresees = Callable[[Request], Awaitable[Forecast | None]]


async def nothing_foreseen(request: Request) -> Forecast | None:
    """No forecast: the tenant's running mean is believed, then the prior."""
    return None


class Polled:
    """Forecasts of an `Advice` for coroutines, looked for every millisecond until its deadline."""

    def __init__(self, advice: Advice, deadline_ms: float) -> None:
        self._advice, self._deadline_s = advice, deadline_ms / 1e3
        self._wanted: dict[str, Forecast | None] = {}

    async def __call__(self, request: Request) -> Forecast | None:
        """The forecast, or None where it failed or did not come in time."""
        self._wanted[request.id] = None
        try:
            self._advice.ask(request)
            end = time.monotonic() + self._deadline_s
            while self._wanted[request.id] is None and time.monotonic() < end:
                await asyncio.sleep(0.001)
                found = self._advice.take()
                self._wanted |= {name: one for name, one in found if name in self._wanted}
            return self._wanted[request.id]
        finally:
            del self._wanted[request.id]


class TagDoor:
    """Tags from a `FairTagger`; `slot.priority` goes into the body.

    A tag cannot wait for its forecast to come later, so `foresees` is awaited: it must keep its own deadline and
    answer None rather than raise (`mope.server.Foresight` does).
    """

    def __init__(
        self,
        tagger: FairTagger | None = None,
        foresees: Foresees = nothing_foreseen,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tagger = FairTagger() if tagger is None else tagger
        self._foresees, self._clock = foresees, clock
        self._number = 0

    @asynccontextmanager
    async def slot(self, request: Request, gone: asyncio.Future[Any] | None = None) -> AsyncIterator[Slot]:
        """Never waits but for a forecast. The first token told counts as the beginning."""
        self._number += 1
        request = replace(request, id=f"door-{self._number}")
        forecast = await self._foresees(request)
        now, whole = self._clock(), False
        slot = Slot(request, now, self._progress, self.tagger.tag(request, now, forecast))
        try:
            yield slot
            whole = not slot.failed
        finally:
            if whole:
                self.tagger.finish(request.id, slot.usage or Usage(slot.output_tokens), self._clock())
            else:
                self.tagger.cancel(request.id, self._clock())

    def _progress(self, slot: Slot) -> None:
        self.tagger.progress(slot.request.id, slot.output_tokens, self._clock())

    def metrics_text(self) -> str:
        """Prometheus text: the scheduler's numbers by tenant, then the tagger's."""
        return self.tagger.metrics_text()
