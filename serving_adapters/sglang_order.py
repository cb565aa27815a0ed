"""Fair order of a waiting list that the engine shows before each admission, and accounts kept from what it shows.

Nothing tells us what the engine did between two calls, so it is read off: who is gone from the list was admitted
or aborted, who is back was retracted, and the requests themselves say what they have made. Time is counted in
decode steps, read off the tokens, so every rank of one engine comes to the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby
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
STALE = 4096  # calls without a token after which a running request is given up: its engine forgot it
SPARE = 4
FIRST = 256  # requests put in order before anything is known of the engine's size


class Entry:
    """An open request. `made` output tokens are known of, at `due` the controller is told; `moved` is its last call
    with a token."""

    __slots__ = ("due", "id", "made", "moved", "req", "running", "seen", "tenant")

    def __init__(self, req: Any, number: int) -> None:
        self.req, self.id, self.tenant = req, str(number), ""
        self.made = self.moved = self.seen = 0
        self.due = 0.0
        self.running = False


class FairOrder:
    """Sorts the waiting list of one SGLang scheduler in place; its requests are accounted for by a `Controller`.

    Only the requests the engine may take next are put in order, so a call takes time by how many those are; behind
    them, and among the requests of one tenant, the engine's own order is kept.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.calls = self.ticks = self.numbered = 0
        self._tenant_of: Callable[[Any], object] = tenant_reader(controller.settings.tenant_from)
        self._open: dict[int, Entry] = {}  # by identity: a request is kept alive as long as it is here
        self._by_id: dict[str, Entry] = {}
        self._running: dict[str, Entry] = {}
        self._waiting: list[Entry] = []
        self._depth: Counter[str] = Counter()  # tenant -> waiting requests
        self._admitted = 0  # since the last call
        self._most_running: int | None = None

    def sort(self, waiting: list[Any], by_priority: bool = False) -> None:
        """Read off what happened since the last call, then sort. `by_priority`: only among equal priorities."""
        self.calls += 1
        known = self._open.get
        here = [known(id(req)) for req in waiting]
        for entry in here:
            if entry is not None:
                entry.seen = self.calls
        self._left()
        if any(entry is not None and not entry.running for entry in here):  # so the engine takes no more
            self._most_running = max(self._most_running or 0, len(self._running))
        self._progress()
        entries = [
            self._came(req) if entry is None else self._back(entry)
            for req, entry in zip(waiting, here, strict=True)
        ]
        self._waiting = entries
        if len(self._depth) > 1:
            places = self._places(entries, by_priority)
            first = set(places)
            places += [place for place in range(len(waiting)) if place not in first]
            waiting[:] = [waiting[place] for place in places]
            self._waiting = [entries[place] for place in places]

    def _left(self) -> None:
        """Those gone from the list were admitted, or aborted while they waited."""
        self._admitted = 0
        for entry in self._waiting:
            if entry.seen == self.calls:
                continue
            entry.seen = self.calls
            self._shallower(entry)
            if was_started(entry.req):
                self._started(entry)
                continue
            made = len(entry.req.output_ids)
            if made > entry.made:  # it ran and was retracted since the last call
                entry.made = made
                self.controller.admit(entry.id)
            self._give_up(entry)

    def _started(self, entry: Entry) -> None:
        self.controller.admit(entry.id)
        entry.running, entry.moved = True, self.calls
        entry.due = self.controller.foreseen(entry.id) + 1
        self._running[entry.id] = entry
        self._admitted += 1

    def _progress(self) -> None:
        """Time moves on by the steps that were made; what ran is told of, or over."""
        steps = 1
        for entry in self._running.values():
            made = len(entry.req.output_ids)
            if made > entry.made:
                steps = max(steps, made - entry.made)
                entry.made, entry.moved = made, self.calls
        self.ticks += steps
        self.controller.step(self.ticks * self.controller.settings.step_s)
        for entry in list(self._running.values()):
            if entry.req.finished():
                self._over(entry)
            elif entry.seen != self.calls and (entry.req.is_retracted or self.calls - entry.moved > STALE):
                self._give_up(entry)  # aborted before it was seen waiting again, or forgotten
            elif entry.made >= entry.due:
                self._tell(entry)

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
        self._running.pop(entry.id, None)
        del self._open[id(entry.req)], self._by_id[entry.id]

    def _came(self, req: Any) -> Entry:
        """A request that was never seen before; one that stands in the list twice is seen once."""
        entry = self._open.get(id(req))
        if entry is not None:
            return entry
        controller, params = self.controller, req.sampling_params
        tenant, prompt_tokens = self._tenant_of(req), len(req.origin_input_ids)
        forecast = custom_param(req, controller.settings.forecast_key)
        self.numbered += 1
        entry = self._open[id(req)] = Entry(req, self.numbered)
        self._by_id[entry.id] = entry
        entry.tenant = controller.arrive(
            entry.id, tenant, prompt_tokens, params.max_new_tokens, forecast=forecast
        )
        entry.seen = self.calls
        self._depth[entry.tenant] += 1
        return entry

    def _back(self, entry: Entry) -> Entry:
        """A request that waits on, or again."""
        if entry.running:
            self.controller.tokens(entry.id, entry.made)
            self.controller.preempt(entry.id)
            entry.running = False
            self._running.pop(entry.id, None)
            self._depth[entry.tenant] += 1
        return entry

    def _shallower(self, entry: Entry) -> None:
        self._depth[entry.tenant] -= 1
        if not self._depth[entry.tenant]:
            del self._depth[entry.tenant]

    def _places(self, entries: list[Entry], by_priority: bool) -> list[int]:
        """Places of the requests to come first, in their order."""
        count = min(self._may_start(), len(entries))
        if not by_priority:
            return _by_turns(self.controller.leading(count), self._by_id, entries, range(len(entries)))
        places: list[int] = []
        for _, run in groupby(range(len(entries)), key=lambda place: entries[place].req.priority):
            equal = list(run)
            ids = self.controller.order(entries[place].id for place in equal)
            places += _by_turns(ids, self._by_id, entries, equal)
            if len(places) >= count:
                break
        return places

    def _may_start(self) -> int:
        """How many requests the engine may take now: by how many it has run, and by how many it took last."""
        if self._most_running is None:
            return FIRST
        return SPARE + max(self._most_running - len(self._running), 2 * self._admitted)


def _by_turns(
    ids: Iterable[str], by_id: dict[str, Entry], entries: list[Entry], among: Iterable[int]
) -> list[int]:
    """Places `among` the entries, tenant by tenant as `ids` say, of each tenant in the order they stand."""
    turns = [by_id[one].tenant for one in ids]
    wanted, left = Counter(turns), len(turns)
    found: dict[str, list[int]] = {tenant: [] for tenant in wanted}
    for place in among:
        tenant = entries[place].tenant
        if wanted.get(tenant, 0) > 0:
            wanted[tenant] -= 1
            found[tenant].append(place)
            left -= 1
            if not left:
                break
    queues = {tenant: iter(places) for tenant, places in found.items()}
    taken = (next(queues[tenant], None) for tenant in turns)
    return [place for place in taken if place is not None]
