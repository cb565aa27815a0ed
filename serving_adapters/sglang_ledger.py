"""What happened in SGLang between two looks at its waiting list, told to a controller.

Nothing tells us, so it is read off: who is gone from the list was admitted or aborted, who is back was retracted, and
the requests themselves say what they have made. Time is counted in decode steps, read off the tokens, so that every
rank of one engine comes to the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from mope.serving_adapters.base import Controller
from mope.serving_adapters.sglang_requests import (
    custom_param,
    output_tokens,
    tenant_reader,
    was_aborted,
    was_started,
)

TOLD_EVERY = 8  # output tokens between two reports of a request, beyond what it was charged for
STALE = 4096  # looks without a token after which a running request is given up: its engine forgot it


class Entry:
    """An open request. `made` output tokens are known of; at `due` the controller is told.

    `moved` is the last look that saw a new token, `seen` the last that saw it in the list.
    """

    __slots__ = ("due", "id", "made", "moved", "req", "running", "seen", "tenant")

    def __init__(self, req: Any, number: int, tenant: str) -> None:
        self.req, self.id, self.tenant = req, str(number), tenant
        self.made = self.moved = self.seen = 0
        self.due = 0.0
        self.running = False


class Ledger:
    """The open requests of one scheduler. Those that run are kept alive until the next look finds them over."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.looks = self.ticks = self.numbered = 0
        self.open: dict[int, Entry] = {}  # by identity
        self.by_id: dict[str, Entry] = {}
        self.running: dict[str, Entry] = {}
        self.waiting: list[Entry] = []  # as the list was left by the last look
        self.depth: Counter[str] = Counter()  # tenant -> waiting requests
        self.admitted = 0  # since the last look
        self.most_running: int | None = None  # while others had to wait
        self._tenant_of: Callable[[Any], object] = tenant_reader(controller.settings.tenant_from)

    def look(self, waiting: list[Any]) -> list[Entry]:
        """The entries of what waits now, in its order, once everything else is told."""
        looks = self.looks = self.looks + 1
        known = self.open.get
        here = [known(id(req)) for req in waiting]
        news = []
        for place, entry in enumerate(here):
            if entry is None:
                news.append(place)
                continue
            entry.seen = looks
            if entry.running:
                news.append(place)
        self._left()
        if len(news) < len(here):  # some wait on, so the engine takes no more
            self.most_running = max(self.most_running or 0, len(self.running))
        self._progress()
        for place in news:
            entry = self.open.get(id(waiting[place]))  # an earlier place may hold the same request
            here[place] = self._came(waiting[place]) if entry is None else self._back(entry)
        self.waiting = [entry for entry in here if entry is not None]
        return self.waiting

    def _left(self) -> None:
        """Those gone from the list were admitted, or aborted while they waited."""
        self.admitted = 0
        looks = self.looks
        for entry in [entry for entry in self.waiting if entry.seen != looks]:
            if entry.seen == looks:  # it stood there twice
                continue
            entry.seen = looks
            self._shallower(entry)
            if was_started(entry.req):
                self._started(entry)
                continue
            made = len(entry.req.output_ids)
            if made > entry.made:  # it ran and was retracted since the last look
                entry.made = made
                self.controller.admit(entry.id)
            self._give_up(entry)

    def _started(self, entry: Entry) -> None:
        self.controller.admit(entry.id)
        entry.running, entry.moved = True, self.looks
        entry.due = self.controller.foreseen(entry.id) + 1
        self.running[entry.id] = entry
        self.admitted += 1

    def _progress(self) -> None:
        """Time moves on by the steps that were made; what ran is told of, or over."""
        steps, looks = 1, self.looks
        over, due, lost = list[Entry](), list[Entry](), list[Entry]()
        for entry in self.running.values():
            req = entry.req
            made = len(req.output_ids)
            grew = made - entry.made
            if grew > 0:
                entry.made, entry.moved = made, looks
                if grew > steps:
                    steps = grew
            if req.finished_reason is not None:
                over.append(entry)
            elif made >= entry.due:
                due.append(entry)
            elif entry.seen != looks and (req.is_retracted or looks - entry.moved > STALE):
                lost.append(entry)  # aborted before it was seen waiting again, or forgotten
        self.ticks += steps
        self.controller.step(self.ticks * self.controller.settings.step_s)
        for entry in over:
            self._over(entry)
        for entry in due:
            self._tell(entry)
        for entry in lost:
            self._give_up(entry)

    def _tell(self, entry: Entry) -> None:
        self.controller.tokens(entry.id, entry.made)
        entry.due = max(self.controller.foreseen(entry.id) + 1, entry.made + TOLD_EVERY)

    def _over(self, entry: Entry) -> None:
        if was_aborted(entry.req):
            self._give_up(entry)
            return
        self._close(entry)
        self.controller.finish(entry.id, output_tokens(entry.req))

    def _give_up(self, entry: Entry) -> None:
        self._close(entry)
        self.controller.tokens(entry.id, entry.made)
        self.controller.abort(entry.id)

    def _close(self, entry: Entry) -> None:
        self.running.pop(entry.id, None)
        del self.open[id(entry.req)], self.by_id[entry.id]

    def _came(self, req: Any) -> Entry:
        """A request that was never seen before. All of it is read before anything is changed."""
        controller, most = self.controller, req.sampling_params.max_new_tokens
        raw, prompt_tokens = self._tenant_of(req), len(req.origin_input_ids)
        forecast = custom_param(req, controller.settings.forecast_key)
        number = self.numbered = self.numbered + 1
        tenant = controller.arrive(str(number), raw, prompt_tokens, most, forecast=forecast)
        entry = self.open[id(req)] = Entry(req, number, tenant)
        self.by_id[entry.id] = entry
        entry.seen = self.looks
        self.depth[tenant] += 1
        return entry

    def _back(self, entry: Entry) -> Entry:
        """A request that ran and waits again."""
        if entry.running:
            self.controller.tokens(entry.id, entry.made)
            self.controller.preempt(entry.id)
            entry.running = False
            self.running.pop(entry.id, None)
            self.depth[entry.tenant] += 1
        return entry

    def _shallower(self, entry: Entry) -> None:
        self.depth[entry.tenant] -= 1
        if not self.depth[entry.tenant]:
            del self.depth[entry.tenant]
