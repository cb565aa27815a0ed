"""The most KV tokens that running requests will hold at once, from what each asks for, and who fits beside them.

A request holds `used` tokens and makes one more at each of its `left` next steps. Let the one with the k-th most
left end: the first k are there still and each has grown by as much, so that k left_k + used_1 + ... + used_k tokens
are held. As steps go by, left falls and used rises alike: these sums stay what they are until somebody leaves.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
NEVER = -(1 << 60)
Held = tuple[int, int]  # (step at which a request ends, tokens it holds less the step)


class Peaks:
    """Running requests by their end, the last first. `ends` are steps; sums are over those that end no sooner."""

    def __init__(self, held: list[Held]) -> None:
        self._held = sorted(held, reverse=True)
        self._update()

    def _update(self) -> None:
        # One pass up and one down, in plain lists: there are some twenty requests, and this runs for every admission.
        falling: list[int] = []  # rising, to be searched
        sums, most, after = [0], [0], [NEVER]
        ends: list[int] = []
        total = top = 0
        for count, (end, used) in enumerate(self._held, 1):
            total += used
            peak = end * count + total
            top = peak if peak > top else top
            falling.append(-end)
            sums.append(total)
            most.append(top)
            ends.append(peak + end)
        top = NEVER
        for peak in reversed(ends):
            top = peak if peak > top else top
            after.append(top)
        self._falling, self._sums, self._most, self._after = falling, sums, most, after[::-1]

    def __len__(self) -> int:
        return len(self._held)

    def add(self, end: int, used: int) -> None:
        """One more runs."""
        self._held.append((end, used))
        self._held.sort(reverse=True)
        self._update()

    def beside(self, step: int, used: int, left: int) -> int:
        """The peak if a request that holds `used` tokens, with `left` to come, began at `step`."""
        longer = bisect_right(self._falling, -(step + left))
        own = left * (longer + 1) + self._sums[longer] + longer * step + used
        return max(self._most[longer], self._after[longer] - step + used, own)

    def first(self, step: int, steps: int, used: int, left: int, room: int) -> int:
        """Steps from `step`, 1 to `steps`, until the peak with such a request is below `room`; `steps`: never."""
        ahead = np.arange(step + 1, step + steps + 1)
        longer = np.searchsorted(self._falling, -(ahead + left), "right")
        own = left * (longer + 1) + np.array(self._sums)[longer] + longer * ahead + used
        after = np.array(self._after)[longer] - ahead + used
        over = np.maximum(np.maximum(own, after), np.array(self._most)[longer])
        fits = np.flatnonzero(over < room)
        return int(fits[0]) + 1 if fits.size else steps
