"""Ids closed lately, so that a call that comes late or twice is known from a wrong id."""

from __future__ import annotations

from collections.abc import Iterable

KEPT = 4096


class Recent:
    """At least the last `KEPT` ids put in, at most twice as many."""

    def __init__(self, older: Iterable[str] = (), newer: Iterable[str] = ()) -> None:
        self.older, self.newer = set(older), set(newer)

    def add(self, request_id: str) -> None:
        """Remember an id."""
        self.newer.add(request_id)
        if len(self.newer) >= KEPT:
            self.older, self.newer = self.newer, set()

    def __contains__(self, request_id: str) -> bool:
        return request_id in self.newer or request_id in self.older
