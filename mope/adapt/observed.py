"""A log beside what the bundle said of it: one row for each observed answer, in an order of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mope.data.records import Example
from mope.predictor.bundle import MoPE
from mope.predictor.config import BundleConfig
from mope.types import Request

FOLDS = 5
FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Observed:
    """n answers of one served model.

    truth [n] is log1p(length); limit [n] log1p of where the answer was cut at the latest, infinite where nothing cut;
    weight [n] sums to one for each request. features [n, F], experts [n, E, K] and chances [n, 3] are what the bundle
    read and said. group [n] numbers the conversations, fold [n] is the part of the log a conversation falls into.
    """

    truth: FloatArray
    limit: FloatArray
    weight: FloatArray
    group: Rows
    fold: Rows
    features: NDArray[np.float32]
    experts: FloatArray
    chances: FloatArray

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def cut(self) -> NDArray[np.bool_]:
        """Whether the answer reached its limit, so that its length is only known not to be less, [n]."""
        return self.truth >= self.limit

    @property
    def lengths(self) -> FloatArray:
        """Tokens, [n]."""
        out: FloatArray = np.expm1(self.truth)
        return out

    def take(self, rows: Rows | NDArray[np.bool_]) -> Observed:
        """Some of the answers."""
        return Observed(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


def observe(bundle: MoPE, examples: Sequence[Example], reads_as: str) -> Observed:
    """What the bundle, asked about the known model `reads_as` ("" for none), says of every answer of the log."""
    examples = in_order(examples)
    requests = [replace(example.request, model=reads_as or None) for example in examples]
    inputs = bundle.inputs(requests)
    experts, chances = bundle.expert_answers(requests, inputs)
    sizes = np.array([len(example.lengths) for example in examples], np.int64)
    spread = np.repeat(np.arange(len(sizes)), sizes)
    limits = np.array([np.inf if e.limit is None else e.limit for e in examples], np.float64)[spread]
    lengths = np.array([n for example in examples for n in example.lengths], np.float64)
    groups = np.unique([example.group for example in examples], return_inverse=True)[1]
    folds = np.array([fold_of(example.group) for example in examples], np.int64)
    return Observed(
        np.log1p(np.minimum(lengths, limits)), np.log1p(limits), 1.0 / sizes[spread],
        groups[spread].astype(np.int64), folds[spread], inputs.features[spread], experts[spread], chances[spread],
    )  # fmt: skip


def in_order(examples: Sequence[Example]) -> list[Example]:
    """The examples in an order that depends on what they say alone: a shuffled log is the same log."""
    return sorted(
        examples, key=lambda e: (e.group, e.request.prompt, repr(e.request), sorted(e.lengths), repr(e.cap))
    )


def fold_of(group: str) -> int:
    """The part of a log that a conversation falls into, by its name alone; not the parts of training."""
    digest = hashlib.sha256(f"fold:{group}".encode("utf-8", "replace")).digest()
    return digest[0] % FOLDS


def as_asked(model: str, config: BundleConfig) -> str:
    """The name the bundle reads for a served model: its own where it is known, else none."""
    return model if model in config.models else ""


def served(examples: Sequence[Example], model: str) -> list[Request]:
    """The requests as sent to `model`."""
    return [replace(example.request, model=model) for example in examples]
