"""The most KV tokens that running requests will hold at once, from what each asks for, and who fits beside them.

A request holds `used` tokens and makes one more at each of its `left` next steps. Let the one with the k-th most
left end: the first k are there still and each has grown by as much, so that k left_k + used_1 + ... + used_k tokens
are held. As steps go by, left falls and used rises alike: these sums stay what they are until somebody leaves.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Held = tuple[int, int]  # (step at which a request ends, tokens it holds less the step)


class Peaks:
    """Running requests by their end, the last first. `ends` are steps; sums are over those that end no sooner."""

    def __init__(self, held: list[Held]) -> None:
        self._held = sorted(held, reverse=True)
        self._update()

    def _update(self) -> None:
        held = self._held
        self._falling = [-end for end, _ in held]  # rising, to be searched
        self._sums = [0, *accumulate(used for _, used in held)]
        peaks = [
            end * k + used for k, ((end, _), used) in enumerate(zip(held, self._sums[1:], strict=True), 1)
        ]
        self._most = [0, *accumulate(peaks, max)]
        after = [peak + end for peak, (end, _) in zip(peaks, held, strict=True)]
        self._after = [*list(accumulate(reversed(after), max))[::-1], -(1 << 60)]

    def __len__(self) -> int:
        return len(self._held)

    def add(self, end: int, used: int) -> None:
        """One more runs."""
        self._held = sorted([*self._held, (end, used)], reverse=True)
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
