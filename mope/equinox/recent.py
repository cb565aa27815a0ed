"""Ids closed lately, so that a call that comes late or twice is known from a wrong id."""

from __future__ import annotations

from collections.abc import Iterable

KEPT = 1024


class Recent:
    """The last `KEPT` ids put in. Adding is what has to be fast: it comes with every request."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._ring: list[str | None] = [None] * KEPT
        self._next = 0
        for request_id in ids:
            self.add(request_id)

    def add(self, request_id: str) -> None:
        """Remember an id in place of the oldest."""
        place = self._next
        self._ring[place] = request_id
        self._next = place + 1 if place + 1 < KEPT else 0

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._ring

    def ids(self) -> list[str]:
        """The oldest first."""
        ring = self._ring[self._next :] + self._ring[: self._next]
        return [request_id for request_id in ring if request_id is not None]
