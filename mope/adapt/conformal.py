"""What the latest scores say each end must be moved by, kept at its coverage by feedback.

Scores are those of conformalized quantile regression (Romano, Patterson, Candes), each end apart: how far the truth
lies above the end. The quantile of the window at the wanted miss rate says where the end belongs; an integrating
term, moved against every miss, corrects what the window gets wrong. This is the control that adaptive conformal
inference (Gibbs, Candes) exerts on the level, in the form of conformal PID control (Angelopoulos, Candes,
Tibshirani), which acts on the end itself and so needs no infinite intervals.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from mope.adapt.scores import NOTHING, Ends, quantile
from mope.adapt.window import Sorted, Window

MISS = 0.1  # wanted on each side: the interval is an 80 % one
GAIN = 0.02  # of the half-width of the scores, for a miss
MOST_NUDGE = 1.0
LEAST_SCALE = 0.05


class Tracker:
    """Offsets of the ends from a window, with the feedback of the answers since the last `reset`."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.offsets = NOTHING
        self.down = self.up = 0.0

    def observe(self, scores: Ends, client: str = "", capped: bool = False) -> bool:
        """Learn from one answer; False where its client is above its share and only replaces what it said before.

        A capped answer was at least this long. It enters the window at the middle of the scores above its own, and
        counts as a miss only where it is one already.
        """
        heard = self.window.add(guess(self.window, scores) if capped else scores, client)
        if heard:
            self._feed(scores, capped)
        self.settle()
        return heard

    def _feed(self, scores: Ends, capped: bool) -> None:
        below, above = scores.low < self.offsets.low, scores.high > self.offsets.high
        step = GAIN * self._scale()
        if not (capped and below):
            self.down = _within(self.down + step * (below - MISS))
        if not capped or above:
            self.up = _within(self.up + step * (above - MISS))

    def settle(self) -> None:
        """Work the offsets out again."""
        low, mid, high = offsets_of(self.window)
        self.offsets = Ends(low - self.down, mid, high + self.up)

    def _scale(self) -> float:
        mid = self.window.mid
        outer = len(mid) // 10
        return max(LEAST_SCALE, (mid[-1 - outer] - mid[outer]) / 2)

    def reset(self) -> None:
        """Forget the feedback, after the window was cut."""
        self.down = self.up = 0.0
        self.settle()

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"window": self.window.to_json(), "down": self.down, "up": self.up}

    def load(self, found: dict[str, Any]) -> None:
        """Go on from `to_json`."""
        self.window.load(found["window"])
        self.down, self.up = _within(float(found["down"])), _within(float(found["up"]))
        self.settle()


def offsets_of(window: Sorted) -> Ends:
    """What a window alone says that the ends must be moved by; nothing, where it is empty."""
    mid = window.mid
    if not mid:
        return NOTHING
    size = len(mid)
    middle = (mid[size // 2] + mid[(size - 1) // 2]) / 2
    return Ends(quantile(window.low, MISS), middle, quantile(window.high, 1.0 - MISS))


def guess(window: Sorted, scores: Ends) -> Ends:
    """The scores of a capped answer, had it gone on as far as half of those in the window that went further."""
    mid = window.mid
    above = bisect_right(mid, scores.mid)
    if above == len(mid):
        return scores
    more = mid[(above + len(mid)) // 2] - scores.mid
    return Ends(scores.low + more, scores.mid + more, scores.high + more)


def _within(nudge: float) -> float:
    return min(MOST_NUDGE, max(-MOST_NUDGE, nudge))
