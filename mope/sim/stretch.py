"""A stretch of decode steps of one batch, in closed form.

Step j (from 1) of B sequences with C tokens of context at its start takes a + b (C + (j - 1) B) seconds, so that
j steps end at t + j (a + b C) + b B j (j - 1) / 2. Stepping one by one evaluates the same expression.
"""

from __future__ import annotations

from math import ceil, sqrt


class Stretch:
    """Steps from `step` on, which starts at `start_s`; the line of their time holds up to `until`."""

    __slots__ = ("first_s", "growth_s", "start_s", "step", "until")

    def __init__(self, start_s: float, step: int, first_s: float, growth_s: float, until: int) -> None:
        self.start_s, self.step, self.first_s, self.growth_s = start_s, step, first_s, growth_s
        self.until = until

    def at(self, step: int) -> float:
        """When the batch has come to `step`."""
        j = step - self.step
        return self.start_s + (j * self.first_s + self.growth_s * (j * (j - 1) // 2))

    def reached(self, time: float) -> int:
        """The first step that ends at `time` or later, at least one from the start."""
        left, half = time - self.start_s, self.growth_s / 2
        slope = self.first_s - half
        root = sqrt(slope * slope + 4 * half * left) if left > 0 else slope
        step = self.step + max(1, ceil(2 * left / (slope + root)) if slope + root > 0 else 1)
        while step > self.step + 1 and self.at(step - 1) >= time:
            step -= 1
        while self.at(step) < time:
            step += 1
        return step
