"""The latest scores: of one client, or of many of whom none holds more than its share."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from mope.adapt.scores import Ends

HALF = 2  # who sends counts over the latest HALF to 2 * HALF times `size` requests; then it is forgotten


class Entry(NamedTuple):
    """One finished request: its scores and who asked."""

    scores: Ends
    client: str


class Sorted:
    """Scores of three kinds, each sorted."""

    def __init__(self) -> None:
        self.low: list[float] = []
        self.mid: list[float] = []
        self.high: list[float] = []

    def __len__(self) -> int:
        return len(self.mid)

    def put(self, scores: Ends) -> None:
        """Sort one in."""
        low, mid, high = scores
        insort(self.low, low)
        insort(self.mid, mid)
        insort(self.high, high)

    def take(self, scores: Ends) -> None:
        """Take one out that was put in."""
        low, mid, high = scores
        del self.low[bisect_left(self.low, low)]
        del self.mid[bisect_left(self.mid, mid)]
        del self.high[bisect_left(self.high, high)]


class Latest(Sorted):
    """The latest `size` scores."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.rows: deque[Ends] = deque()

    def add(self, scores: Ends) -> None:
        """Take in a score; the oldest makes room."""
        if len(self.rows) >= self.size:
            self.take(self.rows.popleft())
        self.rows.append(scores)
        self.put(scores)

    def to_json(self) -> list[list[float]]:
        """As JSON takes it."""
        return [list(scores) for scores in self.rows]

    def load(self, found: Sequence[Sequence[float]]) -> None:
        """Go on from `to_json`; raises `ValueError` for scores that are not finite."""
        for low, mid, high in found:
            self.add(_finite(low, mid, high))


class Traffic:
    """Who sent the latest requests: at least the last `half`, at most twice as many."""

    def __init__(self, half: int) -> None:
        self.half = half
        self.before: dict[str, int] = {}
        self.now: dict[str, int] = {}
        self.total_before = self.total_now = 0

    def add(self, client: str) -> int:
        """Count one request; returns how many the other clients sent."""
        if self.total_now >= self.half:
            self.before, self.total_before = self.now, self.total_now
            self.now, self.total_now = {}, 0
        own = self.now[client] = self.now.get(client, 0) + 1
        self.total_now += 1
        return self.total_before + self.total_now - own - self.before.get(client, 0)

    def to_json(self) -> list[dict[str, int]]:
        """As JSON takes it."""
        return [dict(self.before), dict(self.now)]

    def load(self, found: Sequence[Mapping[str, int]]) -> None:
        """Go on from `to_json`."""
        self.before, self.now = ({str(name): int(n) for name, n in part.items()} for part in found)
        self.total_before, self.total_now = sum(self.before.values()), sum(self.now.values())


class Window(Sorted):
    """At most `size` scores in the order they came, of which no client has more than its share.

    Where the other clients sent `sent` of the latest requests (`Traffic`) and c of them hold `others` scores, a
    client may hold

        max(share / (1 - share) * others, others / c + 1, size * (1 - sent / need))

    of its own: alone, all of it; once the others send `need` or more, `share` of the window, or as much as the mean
    of the others and one more. Above that its own oldest makes room for its newest, so that it can never push out
    anybody else's.
    """

    def __init__(self, size: int, share: float, need: int) -> None:
        super().__init__()
        self.size, self.share, self.need = size, share, need
        self.arrivals = 0
        self.traffic = Traffic(HALF * size)
        self.entries: OrderedDict[int, Entry] = OrderedDict()  # by number of arrival
        self.own: dict[str, deque[int]] = {}

    def add(self, scores: Ends, client: str) -> bool:
        """Take in a score; False where it only took the place of the client's own, being above its share."""
        self.arrivals += 1
        sent = self.traffic.add(client)
        mine = self.own.get(client)
        count = len(mine) if mine else 0
        room = self.room(sent, len(self.entries) - count, len(self.own) - bool(mine))
        if mine and count >= room:
            self._drop(mine[0])
            if count > room:
                return False
            self._put(scores, client)
            return sent < self.need
        if len(self.entries) >= self.size:
            self._drop(next(iter(self.entries)))
        self._put(scores, client)
        return True

    def room(self, sent: int, others: int, clients: int) -> int:
        """How many scores a client may hold beside `others` of `clients` others; at least 1."""
        equal = others / clients + 1.0 if clients else 1.0
        return int(max(self.share / (1.0 - self.share) * others, equal, self.size * (1.0 - sent / self.need)))

    def keep(self, wanted: Callable[[int, Entry], bool]) -> None:
        """Drop what is not wanted, by its place from the oldest (0) and its entry."""
        for place, (number, entry) in enumerate(list(self.entries.items())):
            if not wanted(place, entry):
                self._drop(number)

    def _put(self, scores: Ends, client: str) -> None:
        self.entries[self.arrivals] = Entry(scores, client)
        mine = self.own.get(client)
        if mine is None:
            mine = self.own[client] = deque()
        mine.append(self.arrivals)
        self.put(scores)

    def _drop(self, number: int) -> None:
        scores, client = self.entries.pop(number)
        mine = self.own[client]
        mine.remove(number)  # the first, but for `keep`: a client's scores leave in the order they came
        if not mine:
            del self.own[client]
        self.take(scores)

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        rows = [[number, *entry.scores, entry.client] for number, entry in self.entries.items()]
        return {"arrivals": self.arrivals, "traffic": self.traffic.to_json(), "rows": rows}

    def load(self, found: Mapping[str, Any]) -> None:
        """Go on from `to_json`; raises `ValueError` for rows that were never one."""
        rows = found["rows"]
        if len(rows) > self.size:
            raise ValueError(f"{len(rows)} scores in a window of {self.size}")
        for number, low, mid, high, client in rows:
            if number <= self.arrivals:
                raise ValueError(f"score {number} out of order")
            self.arrivals = int(number)
            self._put(_finite(low, mid, high), str(client))
        self.arrivals = max(self.arrivals, int(found["arrivals"]))
        self.traffic.load(found["traffic"])


def _finite(*scores: float) -> Ends:
    found = Ends(*map(float, scores))
    if not all(map(isfinite, found)):
        raise ValueError(f"scores {found}")
    return found
