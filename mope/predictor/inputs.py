"""Requests as arrays: each different text once, beside the features and the served model of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from mope.predictor.config import TextConfig
from mope.predictor.features import matrix
from mope.predictor.text import encode
from mope.types import Request

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHUNK = 4096
Int = TypeVar("Int", np.int32, np.int8)


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded texts and the rows that read them.

    ids, segments, mask: int64 [T, S]; row r reads text `text[r]`; features float32 [B, F]; model int64 [B].
    """

    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    mask: NDArray[np.int64]
    text: NDArray[np.int64]
    features: NDArray[np.float32]
    model: NDArray[np.int64]

    def subset(self, rows: NDArray[np.int64]) -> tuple[Batch, NDArray[np.int64]]:
        """Some rows, and the texts they read, for indexing what was computed from all texts."""
        texts, where = np.unique(self.text[rows], return_inverse=True)
        part = Batch(
            self.ids[texts], self.segments[texts], self.mask[texts], where.astype(np.int64),
            self.features[rows], self.model[rows],
        )  # fmt: skip
        return part, texts

    def alone(self) -> list[Batch]:
        """One batch for each text, without padding, with the rows that read it."""
        sizes = self.mask.sum(axis=1)
        if len(sizes) == 1 and sizes[0] == self.ids.shape[1]:
            return [self]
        found = []
        for place, size in enumerate(sizes):
            rows = np.flatnonzero(self.text == place)
            one = slice(place, place + 1), slice(size)
            found.append(Batch(
                self.ids[one], self.segments[one], self.mask[one], np.zeros(len(rows), np.int64),
                self.features[rows], self.model[rows],
            ))  # fmt: skip
        return found


@dataclass(frozen=True, eq=False)
class Inputs:
    """n rows over T different texts. `starts` int64 [T + 1] cuts `ids` (int32) and `segments` (int8)."""

    ids: NDArray[np.int32]
    segments: NDArray[np.int8]
    starts: NDArray[np.int64]
    text: NDArray[np.int64]
    features: NDArray[np.float32]
    model: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.text)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 [T]."""
        return np.diff(self.starts)

    def take(self, rows: NDArray[np.int64]) -> Inputs:
        """The rows alone, over the same texts."""
        return replace(self, text=self.text[rows], features=self.features[rows], model=self.model[rows])

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """The rows padded to their longest text; a text read by several rows stands once."""
        texts, where = np.unique(self.text[rows], return_inverse=True)
        ids, segments, mask = self.padded(texts)
        return Batch(ids, segments, mask, where.astype(np.int64), self.features[rows], self.model[rows])

    def padded(
        self, texts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """ids, segments and mask of some texts, int64 [len(texts), S]."""
        sizes = self.sizes[texts]
        mask = np.arange(sizes.max(initial=1))[None, :] < sizes[:, None]
        ids, segments = np.zeros(mask.shape, np.int64), np.zeros(mask.shape, np.int64)
        where = np.concatenate([np.arange(self.starts[t], self.starts[t + 1]) for t in texts])
        ids[mask], segments[mask] = self.ids[where], self.segments[where]
        return ids, segments, mask.astype(np.int64)


def build_inputs(
    requests: Sequence[Request],
    tokenizer: Tokenizer,
    config: TextConfig,
    models: Sequence[str] = (),
    features: NDArray[np.float32] | None = None,
) -> Inputs:
    """Tokenize each different text once. A model that is not in `models` gets index 0, "unknown"."""
    places: dict[tuple[str, str, str], int] = {}
    first: list[Request] = []
    text = np.empty(len(requests), np.int64)
    for row, request in enumerate(requests):
        history = request.history
        key = (request.prompt, history.prompts[-1] if history.prompts else "", history.answer_tail)
        place = places.setdefault(key, len(first))
        if place == len(first):
            first.append(request)
        text[row] = place
    pieces = [p for i in range(0, len(first), CHUNK) for p in encode(first[i : i + CHUNK], tokenizer, config)]
    known = {name: index for index, name in enumerate(models, start=1)}
    return Inputs(
        ids=_flat([ids for ids, _ in pieces], np.int32),
        segments=_flat([segments for _, segments in pieces], np.int8),
        starts=np.cumsum([0, *(len(ids) for ids, _ in pieces)], dtype=np.int64),
        text=text,
        features=matrix(requests) if features is None else features,
        model=np.array([known.get(request.model or "", 0) for request in requests], dtype=np.int64),
    )


def _flat(lists: list[list[int]], kind: type[Int]) -> NDArray[Int]:
    return np.fromiter((x for row in lists for x in row), kind, sum(map(len, lists)))
