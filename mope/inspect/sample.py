"""Whole groups of examples, as many as fit, the same ones in whatever order they come."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from mope.data.records import Example, LengthData


@dataclass
class Sample:
    """At most `most` examples: the groups of smallest hash. A single group may be larger than that."""

    most: int
    limit: int = 1 << 64
    kept: dict[int, list[Example]] = field(default_factory=dict)
    size: int = 0
    offered: int = 0

    def add(self, example: Example) -> None:
        """Take an example in, and drop the group of largest hash while there are too many."""
        self.offered += 1
        place = _place(example.group)
        if place >= self.limit:
            return
        self.kept.setdefault(place, []).append(example)
        self.size += 1
        if self.size > 2 * self.most:
            self._shrink()

    def _shrink(self) -> None:
        for place in sorted(self.kept, reverse=True):
            if self.size <= self.most or len(self.kept) == 1:
                break
            self.size -= len(self.kept.pop(place))
            self.limit = place

    def data(self) -> LengthData:
        """The examples, by group."""
        if self.size > self.most:
            self._shrink()
        return LengthData([example for place in sorted(self.kept) for example in self.kept[place]])


def _place(group: str) -> int:
    # another hash than the split's: a sample must hold every part alike
    return int.from_bytes(hashlib.blake2b(group.encode("utf-8", "replace"), digest_size=8).digest(), "big")
