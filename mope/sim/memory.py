"""KV blocks of a batch in which every sequence grows by one token a step: how many at any step, without stepping."""

from __future__ import annotations


class Blocks:
    """Blocks of `size` tokens held by the sequences of a batch.

    A sequence that holds n tokens at step s holds ceil((n + k) / size) blocks at step s + k. So only n - s, its
    quotient and remainder by the block size matter, and the blocks of all are a sum over remainders. `fixed`
    blocks are held by sequences that do not grow.
    """

    def __init__(self, total: int, size: int) -> None:
        self.total, self.size = total, size
        self.count = self.fixed = 0
        self._whole = 0
        self._rest = [0] * size  # sequences by (n - s) mod size

    def add(self, tokens: int, step: int) -> None:
        """A sequence that holds `tokens` at `step` joins."""
        self._change(tokens - step, 1)

    def remove(self, tokens: int, step: int) -> None:
        """A sequence that holds `tokens` at `step` leaves."""
        self._change(tokens - step, -1)

    def _change(self, offset: int, by: int) -> None:
        whole, rest = divmod(offset, self.size)
        self.count += by
        self._whole += by * whole
        self._rest[rest] += by

    def at(self, step: int) -> int:
        """Blocks held at `step`."""
        if self.size == 1:
            return self.fixed + self._whole + self.count * step
        whole, rest = divmod(step, self.size)
        # ceil((m + rest) / size) of a remainder m: 0 where both are 0, 2 where the sum is above size, else 1
        second = sum(self._rest[self.size - rest + 1 :]) if rest > 1 else 0
        none = self._rest[0] if rest == 0 else 0
        return self.fixed + self._whole + self.count * (whole + 1) + second - none

    def surely(self, tokens: int) -> int:
        """Steps for which all fit that hold `tokens` together now, as far as that can be seen at once."""
        left = self.total - self.fixed - self.count - tokens // self.size - 1
        return left * self.size // self.count

    def last(self, step: int) -> int:
        """The last step from `step` on at which all still fit; below `step` where they do not fit now."""
        if not self.count:
            return step
        low = step + (self.total - self.at(step)) // self.count * self.size - 2 * self.size
        low = max(step - 1, low)
        while self.at(low + 1) <= self.total:
            low += 1
        return low

    def of(self, tokens: int) -> int:
        """Blocks that `tokens` of one sequence take."""
        return -(-tokens // self.size)

    @property
    def tokens(self) -> int:
        """Tokens that fit in all blocks."""
        return self.total * self.size
