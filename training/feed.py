"""What a stage is fed: batches that depend on the seed and their number alone, so any stop can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mope.data.records import LengthData
from mope.data.split import Bounds
from mope.predictor.inputs import Inputs
from mope.training.cache import HiddenCache
from mope.training.lexical import bucket_shares
from mope.training.recipe import OptimConfig

BLOCK = 50  # batches whose texts are sorted by size together: little padding, order still random
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one part of the data: inputs, their answers [n, S] (0 where there is none) and weights [n, S].

    `caps` [n] are the limits the answers were cut at, infinite where there was none; None where no row has one.
    """

    inputs: Inputs
    lengths: NDArray[np.float32]
    weights: NDArray[np.float32]
    shares: NDArray[np.float32]
    caps: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.inputs)


def make_part(inputs: Inputs, data: LengthData, bounds: Bounds, censored: bool = True) -> Part:
    """Answers padded to the most that any row has; each row's weights sum to one. Caps only where `censored`."""
    most = max((len(e.lengths) for e in data.examples), default=1)
    lengths = np.zeros((len(data), most), np.float32)
    weights = np.zeros_like(lengths)
    for row, example in enumerate(data.examples):
        n = len(example.lengths)
        lengths[row, :n], weights[row, :n] = example.lengths, 1 / n
    caps = np.array([np.inf if e.limit is None else e.limit for e in data.examples], np.float32)
    told = caps if censored and np.isfinite(caps).any() else None
    return Part(inputs, lengths, weights, bucket_shares(data, bounds).astype(np.float32), told)


@dataclass(frozen=True, eq=False)
class Feed:
    """Batches of some rows of a part, for one stage. `choose` restricts and weighs rows (an expert's bucket)."""

    part: Part
    optim: OptimConfig
    seed: int
    epochs: float = 1.0
    row_weight: NDArray[np.float32] | None = None
    hidden: HiddenCache | None = None
    _passes: dict[int, list[Rows]] = field(default_factory=dict, repr=False)

    @cached_property
    def rows(self) -> Rows:
        """Rows that are used at all."""
        if self.row_weight is None:
            return np.arange(len(self.part), dtype=np.int64)
        return np.flatnonzero(self.row_weight > 0).astype(np.int64)

    @cached_property
    def per_pass(self) -> int:
        """Batches in one pass over the texts; the same for every pass."""
        sizes = [len(block) for block in self._blocks(np.unique(self.part.inputs.text[self.rows]))]
        return sum(-(-size // self.optim.batch) for size in sizes)

    @property
    def steps(self) -> int:
        """Batches in all."""
        return max(1, round(self.per_pass * self.epochs))

    def batch(self, step: int) -> Rows:
        """Rows of batch number `step`; depends on the seed and the step alone."""
        number = step // self.per_pass
        return self._pass(number)[step % self.per_pass]

    def _blocks(self, texts: Rows) -> list[Rows]:
        return np.array_split(texts, max(1, len(texts) // (self.optim.batch * BLOCK)))

    def _pass(self, number: int) -> list[Rows]:
        if number not in self._passes:
            self._passes.clear()
            self._passes[number] = self._draw(np.random.default_rng((self.seed, number)))
        return self._passes[number]

    def _draw(self, rng: np.random.Generator) -> list[Rows]:
        """One pass: every text once, with up to `rows_per_text` of its rows."""
        rows = rng.permutation(self.rows)
        text = self.part.inputs.text[rows]
        order = np.argsort(text, kind="stable")
        rows, text = rows[order], text[order]
        starts = np.flatnonzero(np.diff(text, prepend=-1))
        place = np.arange(len(rows)) - np.repeat(starts, np.diff([*starts, len(rows)]))
        keep = place < self.optim.rows_per_text
        rows, text = rows[keep], text[keep]
        texts, begin, count = np.unique(text, return_index=True, return_counts=True)
        shuffled = rng.permutation(len(texts))
        sizes = self.part.inputs.sizes[texts]
        batches = []
        for block in self._blocks(shuffled):
            ordered = block[np.argsort(sizes[block], kind="stable")]
            for i in range(0, len(ordered), self.optim.batch):
                chosen = ordered[i : i + self.optim.batch]
                batches.append(np.concatenate([rows[begin[t] : begin[t] + count[t]] for t in chosen]))
        return [batches[i] for i in rng.permutation(len(batches))]

    def tensors(self, rows: Rows) -> dict[str, Tensor]:
        """A batch as the modules take it."""
        return tensors(self.part, rows, self.hidden, self.row_weight)


def tensors(
    part: Part, rows: Rows, hidden: HiddenCache | None = None, row_weight: NDArray[np.float32] | None = None
) -> dict[str, Tensor]:
    """Rows as tensors: x is ids [T, S], or cached hidden states [T, S, H]."""
    batch = part.inputs.batch(rows)
    texts = np.unique(part.inputs.text[rows])
    weights = part.weights[rows]
    if row_weight is not None:
        weights = weights * row_weight[rows][:, None]
    return {
        "x": torch.from_numpy(batch.ids) if hidden is None else hidden.read(texts, batch.mask),
        "segments": torch.from_numpy(batch.segments),
        "mask": torch.from_numpy(batch.mask),
        "text": torch.from_numpy(batch.text),
        "features": torch.from_numpy(batch.features),
        "model": torch.from_numpy(batch.model),
        "lengths": torch.from_numpy(part.lengths[rows]),
        "weights": torch.from_numpy(weights),
        "shares": torch.from_numpy(part.shares[rows]),
        **({} if part.caps is None else {"caps": torch.from_numpy(part.caps[rows])}),
    }


class _Batches(Dataset[dict[str, Tensor]]):
    def __init__(self, make: Callable[[int], dict[str, Tensor]], first: int, last: int) -> None:
        self.make, self.first, self.last = make, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.make(self.first + index)


class FeedModule(pl.LightningDataModule):
    """Lightning's view of two feeds. A Lightning epoch is a chunk of `chunk` steps, so checkpoints are frequent."""

    def __init__(self, train: Feed, validation: Feed, chunk: int) -> None:
        super().__init__()
        self.train, self.validation, self.chunk = train, validation, chunk

    @property
    def chunks(self) -> int:
        """Lightning epochs in all."""
        return -(-self.train.steps // self.chunk)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the current chunk."""
        assert self.trainer is not None
        first = self.trainer.current_epoch * self.chunk
        last = min(first + self.chunk, self.train.steps)
        return self._loader(lambda step: self.train.tensors(self.train.batch(step)), first, last)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The validation rows, sorted by size."""
        rows = self.validation.rows
        order = rows[
            np.argsort(
                self.validation.part.inputs.sizes[self.validation.part.inputs.text[rows]], kind="stable"
            )
        ]
        size = 2 * self.validation.optim.batch
        pieces = [order[i : i + size] for i in range(0, len(order), size)]
        return self._loader(lambda step: self.validation.tensors(pieces[step]), 0, len(pieces))

    @staticmethod
    def _loader(make: Callable[[int], dict[str, Tensor]], first: int, last: int) -> DataLoader[Any]:
        return DataLoader(_Batches(make, first, last), batch_size=None, shuffle=False)
