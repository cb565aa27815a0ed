"""What goes next: the accounts with something waiting, by (score, number of the head).

Entries are corrected when looked at: each such account has one live entry, never above its true key. A key
that rises leaves its entry where it is; one that falls gets a new entry, and the old one is dropped later.

Up to `SMALL` entries are a heap. Beyond, a heap's lower levels lie cold in memory, so entries far from their
turn wait unsorted in buckets by score, and only the nearest bucket is sorted: constant time for each move.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain

from mope.equinox.state import Account

Entry = tuple[int, int, Account]
SMALL = 256
PER_BUCKET = 32
NO_BOUND = float("inf")


class Turns:
    """Accounts in the order of their turns. `active` counts them; the owner keeps it."""

    def __init__(self) -> None:
        self.active = 0
        self._run: list[Entry] = []  # the nearest bucket, last first
        self._heap: list[Entry] = []  # what came below the bound since
        self._buckets: dict[int, list[Entry]] = {}
        self._order: list[int] = []  # heap of bucket numbers
        self._shift = 0
        self._bound: float = NO_BOUND  # scores from here up are in buckets
        self._kept = 0  # entries, live or not
        self._moves = 0  # entries pushed since the last sharing out
        self._walking = False

    def push(self, account: Account) -> None:
        """Give an account a new entry: it has none, or its key has fallen below that of its entry."""
        assert account.head is not None
        score = account.score
        entry = account.entry = (score, account.head.number, account)
        self._kept += 1
        self._moves += 1
        if score < self._bound:
            heappush(self._heap, entry)
        else:
            self._put(entry)
        if self._moves > self.active and not self._walking:
            crowded = len(self._heap) > SMALL or self._kept > 2 * self.active + SMALL
            if crowded:
                self._share_out()

    def first(self) -> Account | None:
        """The account whose turn it is; None where nothing waits."""
        while True:
            run, heap = self._run, self._heap
            if run and not (heap and heap[0] < run[-1]):
                entry, from_run = run[-1], True
            elif heap:
                entry, from_run = heap[0], False
            elif self._order:
                self._load()
                continue
            else:
                return None
            account = entry[2]
            head = account.head
            if entry is account.entry:
                if head is not None and account.score == entry[0] and head.number == entry[1]:
                    return account
                account.entry = None
            if from_run:
                run.pop()
            else:
                heappop(heap)
            self._kept -= 1
            if head is not None and account.entry is None:
                self.push(account)

    def in_order(self) -> Generator[Account, None, None]:
        """Accounts from the first on. Close it before anything else changes; nothing has moved then."""
        taken: list[Entry] = []
        self._walking = True
        try:
            while (account := self.first()) is not None:
                yield account
                taken.append(self._take_first())
        finally:
            self._run.extend(reversed(taken))  # all of them are before what is left
            self._kept += len(taken)
            self._walking = False

    def accounts(self) -> list[Account]:
        """Every account with something waiting, in no useful order."""
        return [entry[2] for entry in self._live()]

    def _take_first(self) -> Entry:
        """Take out the entry that `first` has just found."""
        run, heap = self._run, self._heap
        self._kept -= 1
        return heappop(heap) if not run or (heap and heap[0] < run[-1]) else run.pop()

    def _put(self, entry: Entry) -> None:
        index = entry[0] >> self._shift
        bucket = self._buckets.get(index)
        if bucket is None:
            self._buckets[index] = [entry]
            heappush(self._order, index)
        else:
            bucket.append(entry)

    def _load(self) -> None:
        """Make the nearest bucket the run; share out anew where buckets have become far too large or small."""
        nearest = len(self._buckets[self._order[0]])
        wide = nearest > 4 * PER_BUCKET or len(self._order) > SMALL + self.active // 8
        if wide and self._moves > self.active and not self._walking:
            self._share_out()
            if not self._order:
                return
        index = heappop(self._order)
        self._run = self._buckets.pop(index)
        self._run.sort(reverse=True)
        self._bound = (index + 1) << self._shift

    def _every(self) -> Iterator[Entry]:
        return chain(self._run, self._heap, *self._buckets.values())

    def _live(self) -> list[Entry]:
        return [entry for entry in self._every() if entry is entry[2].entry and entry[2].head is not None]

    def _share_out(self) -> None:
        """Drop what is not live, and choose the width of the buckets by the scores there are."""
        live = self._live()
        for entry in self._every():
            if entry[2].head is None:
                entry[2].entry = None
        self._run, self._heap, self._buckets, self._order = [], [], {}, []
        self._kept, self._moves = len(live), 0
        if len(live) <= SMALL:
            self._heap, self._bound = live, NO_BOUND
            heapify(live)
            return
        sample = sorted(entry[0] for entry in live[:: len(live) // PER_BUCKET])
        width = (sample[len(sample) // 2] - sample[0]) * 2 * PER_BUCKET // len(live)  # few are far behind
        self._shift, self._bound = max(width, 1).bit_length() - 1, float("-inf")
        for entry in live:
            self._put(entry)
