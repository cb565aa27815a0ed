"""For engines that keep what waits in a plain list and admit from its front: the list is put into fair order.

Pull model: admitted requests are kept and read again at each look, so nothing but the list has to be hooked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from mope.serving_adapters.base import Controller


class Reads(Protocol):
    """How to read one engine's requests."""

    def id(self, req: Any) -> str: ...
    def tenant(self, req: Any) -> object: ...
    def prompt_tokens(self, req: Any) -> int: ...
    def max_tokens(self, req: Any) -> int | None: ...
    def output_tokens(self, req: Any) -> int: ...
    def is_over(self, req: Any) -> bool: ...
    def is_aborted(self, req: Any) -> bool: ...


class WaitingList:
    """Tells a controller what happens to an engine's requests, and sorts those that wait. One thread owns it."""

    def __init__(self, controller: Controller, reads: Reads) -> None:
        self.controller, self.reads = controller, reads
        self._waiting: dict[str, Any] = {}
        self._running: dict[str, Any] = {}

    def arrive(self, req: Any) -> None:
        """A request has come."""
        reads, name = self.reads, self.reads.id(req)
        if name not in self._waiting and name not in self._running:
            self._waiting[name] = req
            self.controller.arrive(name, reads.tenant(req), reads.prompt_tokens(req), reads.max_tokens(req))

    def look(self) -> None:
        """See what became of the running ones."""
        self.read(list(self._running.values()))

    def read(self, reqs: Iterable[Any]) -> None:
        """See what became of these."""
        controller, reads = self.controller, self.reads
        for req in reqs:
            name, made = reads.id(req), reads.output_tokens(req)
            if name not in self._running:
                continue
            if not reads.is_over(req):
                controller.tokens(name, made)
                continue
            del self._running[name]
            controller.tokens(name, made)
            if reads.is_aborted(req):
                controller.abort(name)
            else:
                controller.finish(name, made)

    def sort(self, waiting: Sequence[Any], room: int) -> list[Any]:
        """`waiting` with the aborted first, then the next `room` in fair order, then the rest as they stood.

        The aborted come first because the engines drop a prefix that is counted with them.
        """
        self._forget_all_but(waiting)
        aborted = [req for req in waiting if self.reads.is_aborted(req)]
        for req in aborted:
            name = self.reads.id(req)
            if self._waiting.pop(name, None) is not None:
                self.controller.abort(name)
        first = self.controller.leading(max(room, 0)) or []
        front = [self._waiting[name] for name in first if name in self._waiting]
        placed = {id(req) for req in (*aborted, *front)}
        return [*aborted, *front, *(req for req in waiting if id(req) not in placed)]

    def admitted(self, reqs: Iterable[Any]) -> None:
        """The engine starts these."""
        for req in reqs:
            name = self.reads.id(req)
            self._waiting.pop(name, None)
            self._running[name] = req
            self.controller.admit(name)

    def back(self, reqs: Iterable[Any]) -> None:
        """The engine paused these; they wait again, in front of their tenant's others."""
        for req in reqs:
            name = self.reads.id(req)
            if self._running.pop(name, None) is not None:
                self.controller.tokens(name, self.reads.output_tokens(req))
                self.controller.preempt(name)
                self._waiting[name] = req

    def _forget_all_but(self, waiting: Sequence[Any]) -> None:
        """Take in what came past us, let go of what left past us."""
        for req in waiting:
            self.arrive(req)
        if len(self._waiting) > len(waiting):
            there = {self.reads.id(req) for req in waiting}
            for name in [name for name in self._waiting if name not in there]:
                del self._waiting[name]
                self.controller.abort(name)
