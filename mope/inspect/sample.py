"""As many groups of examples as fit, the same ones in whatever order they come."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from mope.data.records import Example, LengthData

MOST_A_GROUP = 16  # hundreds of models' answers to one prompt are still one prompt


@dataclass
class Sample:
    """At most `most` examples: the groups of smallest hash, and of each the examples of smallest hash.

    A single group may be larger than `most`. All groups are counted: 8 bytes of hash each.
    """

    most: int
    limit: int = 1 << 64
    kept: dict[int, list[tuple[int, Example]]] = field(default_factory=dict)
    size: int = 0
    groups: set[int] = field(default_factory=set)

    def add(self, example: Example) -> None:
        """Take an example in, and drop the groups of largest hash while there are too many."""
        place = _hash(example.group)
        self.groups.add(place)
        if place >= self.limit:
            return
        members = self.kept.setdefault(place, [])
        members.append((_of(example), example))
        self.size += 1
        if len(members) > MOST_A_GROUP:
            members.remove(max(members, key=_first))
            self.size -= 1
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
        chosen = (sorted(self.kept[place], key=_first) for place in sorted(self.kept))
        return LengthData([example for members in chosen for _, example in members])

    @property
    def share(self) -> float:
        """Which part of all groups the sample holds."""
        return len(self.kept) / len(self.groups) if self.groups else 1.0


def _first(pair: tuple[int, Example]) -> int:
    return pair[0]


def _of(example: Example) -> int:
    request = example.request
    told = (example.source, request.model, request.history.turn, request.prompt, example.cap, example.lengths)
    return _hash(repr(told))


def _hash(text: str) -> int:
    # another hash than the split's: a sample must hold every part alike
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
