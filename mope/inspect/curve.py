"""How much data is needed: the error of boosted trees at five sizes, and the power law through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.data.records import LengthData
from mope.data.split import part_of
from mope.evaluation.bootstrap import Draws, resample
from mope.inspect.law import fit
from mope.predictor.features import matrix

FloatArray = NDArray[np.float64]
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
AHEAD = (1, 2, 4, 10)  # times the training rows at hand, where the law is asked
FEWEST = 200  # training examples; fewer make no curve
FEWEST_JUDGED = 50
DRAWS = 3  # subsets a size, but for the whole
PRIOR = 10.0  # answers that weigh as much as the mean of all models


@dataclass(frozen=True)
class Curve:
    """MAE in tokens at each number of training examples, with 95 % intervals, and the law through them.

    `ahead` maps a number of training examples to the error the law expects there; `doubling` is what twice the data
    at hand would take off. Intervals come from a bootstrap over groups of the rows judged: the error of the
    subsets drawn and that of the law's shape are not in them.
    """

    sizes: list[int]
    errors: list[dict[str, float]]
    law: dict[str, float]
    ahead: dict[int, dict[str, float]]
    doubling: dict[str, float]
    judged: int
    at_hand: int
    notes: list[str] = field(default_factory=list)


def learning_curve(
    data: LengthData, share: float, draws: Draws, step: Callable[[str], None] = lambda _: None
) -> Curve | str:
    """The curve of a sample that holds `share` of the groups of the data, or why there is none.

    Trained on mope's train part, judged on its validation and calibration parts: the test part stays unseen.
    """
    parts = np.array([part_of(group) for group in data.groups])
    train, held = (
        np.flatnonzero(parts == "train"),
        np.flatnonzero((parts == "validation") | (parts == "calibration")),
    )
    if len(train) < FEWEST or len(held) < FEWEST_JUDGED:
        counts = f"{len(train)} examples to train on and {len(held)} to judge by"
        return f"{counts}, fewer than {FEWEST} and {FEWEST_JUDGED}"
    if len(np.unique(data.lengths[train])) < 2:
        return "every length is the same"
    board = _Board.of(data, held)
    sizes, columns = [], []
    for part in SHARES:
        size = max(1, round(part * len(train)))
        seeds = range(DRAWS if part < 1 else 1)
        columns.append(np.mean([board.errors(_subset(data, train, size, s), s) for s in seeds], axis=0))
        sizes.append(size)
        step(f"{size:,} examples")
    return _curve(sizes, np.stack(columns, axis=1), board.groups, len(train) / share, len(held), draws)


def _subset(data: LengthData, train: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Whole groups, drawn in an order that the seed gives, until there are `size` examples or just more."""
    names = np.array(data.groups)[train]
    _, codes = np.unique(names, return_inverse=True)
    order = np.random.default_rng(seed).permutation(codes.max() + 1)
    ranked = np.argsort(order[codes], kind="stable")
    return train[np.sort(ranked[:size])]


@dataclass(frozen=True, eq=False)
class _Board:
    """The examples as features, and those that are judged by."""

    data: LengthData
    rows: NDArray[np.float32]
    lengths: FloatArray
    models: NDArray[np.str_]
    held: NDArray[np.int64]

    @classmethod
    def of(cls, data: LengthData, held: NDArray[np.int64]) -> _Board:
        return cls(data, matrix(data.requests), data.lengths, np.array(data.models), held)

    @property
    def groups(self) -> NDArray[np.str_]:
        return np.array(self.data.groups)[self.held]

    def errors(self, train: NDArray[np.int64], seed: int) -> FloatArray:
        """Mean absolute error in tokens of each held-out example, [held], of trees fitted on `train`."""
        from mope.training.boosting import fit_lengths
        from mope.training.floors import LENGTH

        targets = np.log1p(np.minimum(self.lengths[train], np.percentile(self.lengths[train], 99)))
        effect = self._effects(train, targets)
        rows = np.concatenate([self.rows, effect[:, None].astype(np.float32)], axis=1)
        trees = fit_lengths(rows[train], targets, LENGTH, seed)
        told = np.expm1(np.clip(trees.margins(rows[self.held])[:, 0], 0.0, 20.0))
        answers = [self.data.examples[i].lengths for i in self.held]
        return np.array([np.abs(np.asarray(a) - t).mean() for a, t in zip(answers, told, strict=True)])

    def _effects(self, train: NDArray[np.int64], targets: FloatArray) -> FloatArray:
        """What each example's model adds to log1p(length) on the training rows, held to 0 by `PRIOR` answers."""
        _, codes = np.unique(self.models, return_inverse=True)
        count = np.bincount(codes[train], minlength=codes.max() + 1)
        total = np.bincount(codes[train], targets - targets.mean(), minlength=codes.max() + 1)
        found: FloatArray = (total / (count + PRIOR))[codes]
        return found


def _curve(
    sizes: list[int], errors: FloatArray, groups: NDArray[np.str_], at_hand: float, judged: int, draws: Draws
) -> Curve:
    """From the errors [held, sizes] of each example at each size."""
    _, codes = np.unique(groups, return_inverse=True)
    columns = [np.ones(len(errors)), *errors.T]
    sums = np.stack([np.bincount(codes, column) for column in columns], axis=1)
    drawn = resample(sums.astype(np.float64), draws)
    boot = np.maximum(drawn[:, 1:] / drawn[:, :1], 1e-9)
    mean = np.maximum(errors.mean(axis=0), 1e-9)
    x = np.array(sizes, np.float64)
    law, laws = fit(x, mean[None]), fit(x, boot)
    ahead = {
        round(at_hand * times): _told(law.at(at_hand * times), laws.at(at_hand * times)) for times in AHEAD
    }
    gain = [each.at(at_hand) - each.at(2 * at_hand) for each in (law, laws)]
    return Curve(
        sizes, [_told(mean[i : i + 1], boot[:, i]) for i in range(len(sizes))],
        {"floor": float(law.floor[0]), "scale": float(law.scale[0]), "power": float(law.power[0])},
        ahead, _told(gain[0], gain[1]), judged, round(at_hand), [],
    )  # fmt: skip


def _told(value: FloatArray, drawn: FloatArray) -> dict[str, float]:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"value": float(value[0]), "low": float(low), "high": float(high)}


def plain(curve: Curve | str) -> dict[str, Any]:
    """As JSON takes it."""
    if isinstance(curve, str):
        return {"none_because": curve}
    from dataclasses import asdict

    return asdict(curve)
