"""What happens when: events in the order (time, priority, running number)."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Protocol

ARRIVAL, TRANSFER, STEP = 0, 1, 2  # at the same moment, what comes is seen by the step that ends


class Target(Protocol):
    """What an event happens to."""

    def happen(self, now: float, number: int) -> None:
        """The event `number` is due."""


class Events:
    """A queue of events. Nothing is taken out early: a target that has moved on knows by the number."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, int, Target]] = []
        self._number = 0

    def push(self, time: float, priority: int, target: Target) -> int:
        """Let `target.happen` be called at `time`; gives the number of the event."""
        assert time >= self.now, f"an event at {time} in the past of {self.now}"
        self._number += 1
        heappush(self._queue, (time, priority, self._number, target))
        return self._number

    def run(self, count: int) -> bool:
        """Let the next `count` events happen; False once there is none."""
        queue = self._queue
        for _ in range(count):
            if not queue:
                return False
            self.now, _, number, target = heappop(queue)
            target.happen(self.now, number)
        return True
