"""Which tile a launch takes: looked up in tiles.json by architecture, operation, type and number of tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Tile:
    """How one launch is cut: `m` x `n` results a block, `k` at a time.

    `split` blocks share the sum over K of one tile. `persist` starts as many blocks as the card has multiprocessors
    and lets each take several tiles; `tma` loads through tensor descriptors (Hopper and later); `halves` = 2 finishes
    a wide tile in two steps, which needs fewer registers.
    """

    m: int
    n: int
    k: int
    warps: int = 4
    stages: int = 3
    split: int = 1
    halves: int = 1
    persist: bool = False
    tma: bool = False

    @property
    def label(self) -> str:
        """The tile in a few words: 128x256x64, 8 warps, 3 stages, halves."""
        words = [f"{self.m}x{self.n}x{self.k}", f"{self.warps} warps", f"{self.stages} stages"]
        words += [f"split {self.split}"] if self.split > 1 else []
        words += [
            word
            for word, on in (("halves", self.halves > 1), ("persist", self.persist), ("tma", self.tma))
            if on
        ]
        return ", ".join(words)


@cache
def table() -> Mapping[str, Any]:
    """tiles.json: architecture -> operation -> rows of [largest number of tokens, tile]; "why" says where from."""
    read: Mapping[str, Any] = json.loads((files("mope.kernels") / "tiles.json").read_text())
    return read


_forced: ContextVar[Tile | None] = ContextVar("forced", default=None)


@contextmanager
def forced(tile: Tile) -> Iterator[None]:
    """Inside, every launch takes this tile: for tuning."""
    token = _forced.set(tile)
    try:
        yield
    finally:
        _forced.reset(token)


def pick(arch: str, op: str, tokens: int, wide: bool = False) -> Tile:
    """The tile of an operation for up to `tokens` tokens; `wide` is FP32, which needs twice the room.

    A card that the table does not know takes the "other" rows, which fit all of them.
    """
    return _forced.get() or _known(arch, op, tokens, wide)


@cache
def _known(arch: str, op: str, tokens: int, wide: bool) -> Tile:
    key = f"{op} fp32" if wide else op
    known = table()
    rows = known.get(arch, {}).get(key) or known["other"][key]
    chosen = next((row for most, row in rows if most is None or tokens <= most), rows[-1][1])
    return Tile(**chosen)
