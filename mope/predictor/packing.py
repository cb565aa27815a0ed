"""Rows, texts and the experts they go through as packed arrays: no padding, sorted by expert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mope.predictor.inputs import Inputs

Array = NDArray[np.int32] | NDArray[np.float32]
MIN_TOKENS = 64
MIN_ROWS = 4


@dataclass(frozen=True)
class Size:
    """Room of a bucket: what a captured graph is made for. Every batch that fits may use it.

    tokens and texts of the batch; tower_tokens and towers of (text, expert) pairs; answers are the rows of the head,
    batch the rows of features; `longest` bounds a text's tokens.
    """

    tokens: int
    texts: int
    tower_tokens: int
    towers: int
    answers: int
    batch: int
    longest: int


def round_up(n: int, least: int) -> int:
    """The next of 2^k and 1.5 * 2^k, at least `least`: no bucket is more than half empty, on average a sixth."""
    power = max(least, 1 << max(n - 1, 0).bit_length())
    return power * 3 // 4 if n <= power * 3 // 4 and power > least else power


@dataclass(frozen=True, eq=False)
class Pack:
    """One pass. int32 unless said:

    ids, segments, places [T] of the texts, cut by cu [S + 1]; text [B] (each row's); model [B]; features float32
    [B, F]; lexical float32 [B, 3] (chances, or zeros). Sequences of the towers: rows [T'] (which token of the texts
    stands there), cut by tower_cu [S' + 1], experts by offsets [E + 1]. The head's rows: sequence (a tower's), expert
    and source (row of the batch) [R]. whole is [0, T].

    `row_tokens` is how many tokens all rows have if none shares its text: what routing on the device has to have
    room for.
    """

    arrays: Mapping[str, Array]
    longest: int
    row_tokens: int

    @property
    def size(self) -> Size:
        """The bucket that this pass fits into."""
        n = {name: len(array) for name, array in self.arrays.items()}
        return Size(
            tokens=round_up(n["ids"], MIN_TOKENS),
            texts=round_up(n["cu"] - 1, MIN_ROWS),
            tower_tokens=round_up(max(n["rows"], self.row_tokens), MIN_TOKENS),
            towers=round_up(n["tower_cu"] - 1, MIN_ROWS),
            answers=round_up(n["sequence"], MIN_ROWS),
            batch=round_up(n["text"], MIN_ROWS),
            longest=round_up(self.longest, MIN_TOKENS),
        )


def pack(
    inputs: Inputs,
    chosen: NDArray[np.int64],
    wanted: NDArray[np.int64],
    experts: int,
    lexical: NDArray[np.float32] | None = None,
) -> Pack:
    """Rows `chosen` [B] of the inputs, row i to be sent through the experts `wanted[i]` [B, n].

    The head's rows come in the order of `wanted.ravel()`; a text that several rows send to one expert goes once.
    """
    texts, text = np.unique(inputs.text[chosen], return_inverse=True)
    sizes = inputs.sizes[texts]
    flat = spans(inputs.starts[texts], sizes)
    source = np.repeat(np.arange(len(chosen)), wanted.shape[1])
    pairs, sequence = np.unique(wanted.ravel() * len(texts) + text[source], return_inverse=True)
    expert, which = np.divmod(pairs, len(texts))
    cu, tower_cu = starts(sizes), starts(sizes[which])
    arrays: dict[str, Array] = {
        name: np.asarray(array, np.int32)
        for name, array in {
            "ids": inputs.ids[flat],
            "segments": inputs.segments[flat],
            "places": flat - np.repeat(inputs.starts[texts], sizes),
            "cu": cu,
            "whole": cu[[0, -1]],
            "text": text,
            "model": inputs.model[chosen],
            "rows": spans(cu[which], sizes[which]),
            "tower_cu": tower_cu,
            "offsets": tower_cu[np.searchsorted(expert, np.arange(experts + 1))],
            "sequence": sequence,
            "expert": wanted.ravel(),
            "source": source,
        }.items()
    }
    arrays["features"] = inputs.features[chosen]
    arrays["lexical"] = np.zeros((len(chosen), 3), np.float32) if lexical is None else lexical[chosen]
    return Pack(arrays, int(sizes.max(initial=1)), int(sizes[text].sum()))


def starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where parts of these sizes begin, and where the last ends: [n + 1]."""
    return np.concatenate([[0], np.cumsum(sizes)])


def spans(first: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """first[0], first[0] + 1, ... of sizes[0] numbers, then the same of the next."""
    begin = starts(sizes)
    return np.arange(begin[-1]) + np.repeat(first - begin[:-1], sizes)


def portions(inputs: Inputs, tokens: int, rows: int) -> list[NDArray[np.int64]]:
    """Rows in portions, in order, of about `tokens` tokens and at most `rows` rows each."""
    if not len(inputs):
        return []
    passed = np.cumsum(inputs.sizes[inputs.text])
    cuts = np.flatnonzero(np.diff(passed // tokens, prepend=0))
    parts = np.split(np.arange(len(inputs)), cuts[cuts > 0])
    return [piece for part in parts for piece in np.array_split(part, -(-len(part) // rows)) if len(piece)]
