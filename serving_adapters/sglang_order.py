"""Fair order of a waiting list that SGLang shows before each admission.

One sort serves a whole batch, so it goes by prospective service: as if each request were admitted and charged in
turn. Sorting by what was served so far would let one tenant have all of a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from mope.serving_adapters.base import Controller
from mope.serving_adapters.sglang_ledger import Entry, Ledger

SPARE = 2
FIRST = 256  # requests put in order before anything is known of the engine's size


class FairOrder:
    """Sorts the waiting list of one SGLang scheduler in place; a `Controller` keeps its accounts.

    Only the requests the engine may take next are put in order, so a sort takes time by how many those are; behind
    them, and among the requests of one tenant, the engine's own order is kept.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.ledger = Ledger(controller)

    def sort(self, waiting: list[Any], by_priority: bool = False) -> None:
        """Read off what happened since the last sort, then sort. `by_priority`: only among equal priorities."""
        entries = self.ledger.look(waiting)
        if len(self.ledger.depth) < 2:
            return
        count = min(self.may_start(), len(entries))
        if by_priority:
            start, places = 0, self._by_classes(entries, count)
        else:
            ids = self.controller.leading(count)
            start = _in_place(ids, entries)
            places = _by_turns(ids[start:], self.ledger.by_id, entries, range(start, len(entries)))
        for of in (waiting, entries):
            ahead = [of[place] for place in places]
            for place in sorted(places, reverse=True):
                del of[place]
            of[start:start] = ahead

    def _by_classes(self, entries: list[Entry], count: int) -> list[int]:
        """Places of the requests to come first, in their order, class by class of equal priority."""
        places: list[int] = []
        for _, run in groupby(range(len(entries)), key=lambda place: entries[place].req.priority):
            equal = list(run)
            ids = self.controller.order(entries[place].id for place in equal)
            places += _by_turns(ids, self.ledger.by_id, entries, equal)
            if len(places) >= count:
                break
        return places

    def may_start(self) -> int:
        """How many requests the engine may take now: by how many it has run, and by how many it took last."""
        ledger = self.ledger
        if ledger.most_running is None:
            return FIRST
        return SPARE + max(ledger.most_running - len(ledger.running), 2 * ledger.admitted)


def _in_place(ids: list[str], entries: list[Entry]) -> int:
    """How many of `ids` stand at the front already: what the last sort put there and nobody took."""
    return next((place for place, one in enumerate(ids) if entries[place].id != one), len(ids))


def _by_turns(
    ids: Iterable[str], by_id: dict[str, Entry], entries: list[Entry], among: Iterable[int]
) -> list[int]:
    """Places `among` the entries, tenant by tenant as `ids` say, of each tenant in the order they stand."""
    turns = [by_id[one].tenant for one in ids]
    if not turns:
        return []
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
