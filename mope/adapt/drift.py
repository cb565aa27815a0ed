"""Finds out that scores no longer come from where they came from, with a bounded rate of false alarms.

As long as scores are exchangeable, the rank of each among those of its block so far is uniform and independent of
the ranks before it (conformal test martingales: Vovk, Gammerman, Shafer). A bet on ranks that are too high, too low
or too far out has then an expected payoff of at most 1 whatever came before, and the e-detector

    W(t) = payoff(t) * max(W(t - 1), 1)        (of CUSUM form; Shin, Ramdas, Rinaldo)

has an expectation of at most t at any stopping time up to t, so that by Markov's inequality, as in Ville's,

    P(an alarm among the first n scores) <= n * rate        for an alarm at W >= 1 / rate.

Two rows of blocks, half a block apart and each with half the rate, see to it that a change is always compared with at
least half a block of what came before it; the union bound adds their rates.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Any

Wealth = tuple[float, float, float, float, float]

BLOCK = 512
FEWEST = 20  # ranks among fewer scores than this tell too little to bet on


def payoffs(place: float) -> Wealth:
    """What the five bets pay at the place of a rank, from -1 (the lowest) to 1: far down, down, up, far up, far out.

    Over the places of all ranks alike, the first four pay 1 on average and the last at most 1.
    """
    return (
        1.0 - 0.95 * place,
        1.0 - 0.6 * place,
        1.0 + 0.6 * place,
        1.0 + 0.95 * place,
        1.0 + 0.9 * (2.0 * abs(place) - 1.0),
    )


class Blocks:
    """One row of blocks: ranks within the block, and the wealth of each bet."""

    def __init__(self, level: float, skip: int) -> None:
        self.level, self.skip = level, skip
        self.seen: list[float] = []
        self.wealth: Wealth = (0.0, 0.0, 0.0, 0.0, 0.0)

    def observe(self, score: float) -> bool:
        """Whether the mean wealth has reached `level`."""
        if len(self.seen) >= BLOCK - self.skip:
            self.seen.clear()
            self.skip = 0
        seen, alarm = self.seen, False
        if len(seen) >= FEWEST:
            below, upto = bisect_left(seen, score), bisect_right(seen, score)
            # of ties, the mean rank: a tilt then pays 1 on average exactly, and the bet on the spread at most 1
            alarm = self._bet((below + upto + 1) / (len(seen) + 1) - 1.0)
        insort(seen, score)
        return alarm

    def _bet(self, place: float) -> bool:
        """Bets on the place of a rank, -1 the lowest to 1 the highest."""
        a, b, c, d, e = payoffs(place)
        v, w, x, y, z = self.wealth  # written out: a loop over five costs as much as all the rest
        wealth = v, w, x, y, z = (
            a * (v if v > 1.0 else 1.0),
            b * (w if w > 1.0 else 1.0),
            c * (x if x > 1.0 else 1.0),
            d * (y if y > 1.0 else 1.0),
            e * (z if z > 1.0 else 1.0),
        )
        self.wealth = wealth
        return v + w + x + y + z >= 5.0 * self.level

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"seen": list(self.seen), "skip": self.skip, "wealth": list(self.wealth)}

    def load(self, found: dict[str, Any]) -> None:
        """Go on from `to_json`."""
        seen = [float(x) for x in found["seen"]]
        a, b, c, d, e = wealth = tuple(float(x) for x in found["wealth"])
        if len(seen) > BLOCK or seen != sorted(seen) or not all(w >= 0 for w in wealth):
            raise ValueError("a block that is out of order")
        self.seen, self.wealth, self.skip = seen, (a, b, c, d, e), int(found["skip"])


class Detector:
    """Alarms with a probability of at most `n * rate` in n scores while nothing changes; then starts afresh.

    False alarms are so at least 1 / (2 * rate) scores apart in the mean.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.rows = self._fresh()

    def _fresh(self) -> tuple[Blocks, Blocks]:
        level = 2.0 / self.rate
        return Blocks(level, 0), Blocks(level, BLOCK // 2)

    def observe(self, score: float) -> bool:
        """Whether this score raises an alarm."""
        first, second = self.rows
        alarm = first.observe(score)
        alarm = second.observe(score) or alarm
        if alarm:
            self.rows = self._fresh()
        return alarm

    def to_json(self) -> list[dict[str, Any]]:
        """As JSON takes it."""
        return [row.to_json() for row in self.rows]

    def load(self, found: Sequence[dict[str, Any]]) -> None:
        """Go on from `to_json`."""
        for row, values in zip(self.rows, found, strict=True):
            row.load(values)


def change_point(scores: Sequence[float]) -> int:
    """Where the latest of `scores` begin to be others: the place where the sum of centred ranks is farthest from 0.

    Page's cumulative sum over the whole of what is remembered; 0 of fewer than two.
    """
    ordered = sorted(scores)
    total, best, place, half = 0.0, 0.0, 0, len(scores)
    for number, score in enumerate(scores[:-1]):
        total += bisect_left(ordered, score) + bisect_right(ordered, score) - half
        if abs(total) > best:
            best, place = abs(total), number + 1
    return place
