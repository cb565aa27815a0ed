"""A prefix cache: blocks of prompt starts that were read before need no prefill. Off unless it is given memory."""

from __future__ import annotations

from collections import OrderedDict

BLOCK = 512  # prompt tokens in a block, as in Mooncake's traces


class Prefixes:
    """The blocks used last. `capacity` in tokens, set aside from the KV cache. `hits` counts tokens found."""

    def __init__(self, capacity: int) -> None:
        self.most = capacity // BLOCK
        self.hits = 0
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def use(self, blocks: tuple[int, ...]) -> int:
        """Tokens at the start of a prompt that are there already; the whole prompt is from now on."""
        found = 0
        for block in blocks:
            if block not in self._blocks:
                break
            found += 1
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self.most:
            self._blocks.popitem(last=False)
        self.hits += found * BLOCK
        return found * BLOCK
