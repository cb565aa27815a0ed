"""What an evaluation works on: every sampled answer beside what each forecaster said of it.

A prompt with k sampled answers gives k rows of weight 1/k, so each prompt counts once in every
metric and its spread is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mope.data.records import LengthData
from mope.data.split import Bounds, split
from mope.errors import DataError
from mope.evaluation.bootstrap import DEFAULT, Draws, Groups, Interval, mean_intervals
from mope.evaluation.metrics import absolute_error, covered
from mope.types import Request

FloatArray = NDArray[np.float64]

ROUTED = {"hard": "MoPE (routed, hard)", "soft": "MoPE (routed, soft)"}


class Column(Protocol):
    """One forecaster's answers for n requests; see `mope.predictor.bundle.Column`."""

    @property
    def tokens(self) -> NDArray[Any]: ...
    @property
    def quantiles(self) -> NDArray[Any] | None: ...
    @property
    def low(self) -> NDArray[Any] | None: ...
    @property
    def high(self) -> NDArray[Any] | None: ...
    @property
    def probabilities(self) -> NDArray[Any] | None: ...


class Config(Protocol):
    """What evaluation reads of a bundle's config."""

    @property
    def bounds(self) -> Bounds: ...
    @property
    def quantiles(self) -> Sequence[float]: ...
    @property
    def routing(self) -> str: ...


class Bundle(Protocol):
    """What evaluation needs of a bundle."""

    @property
    def config(self) -> Config: ...
    def columns(
        self, requests: Sequence[Request], true_lengths: NDArray[np.float64] | None
    ) -> Mapping[str, Column]: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A column spread over rows [n]: quantiles [n, K], low and high [n], probabilities [n, 3]."""

    tokens: FloatArray
    quantiles: FloatArray | None
    low: FloatArray | None
    high: FloatArray | None
    probabilities: FloatArray | None

    def bucket(self) -> NDArray[np.int64] | None:
        """The most probable bucket of each row, where this forecaster has buckets."""
        return None if self.probabilities is None else self.probabilities.argmax(axis=1).astype(np.int64)

    def interval_values(self, truth: FloatArray) -> dict[str, FloatArray]:
        """Coverage and width of the interval on each row; empty where there is no interval."""
        if self.low is None or self.high is None:
            return {}
        return {"coverage": covered(truth, self.low, self.high), "width": self.high - self.low}


@dataclass(frozen=True, slots=True)
class Rows:
    """Every sampled answer as a row: arrays are [n] rows, `example` points into `data`."""

    data: LengthData
    refused: Mapping[str, int]
    notes: tuple[str, ...]
    part: str
    bounds: Bounds
    levels: tuple[float, ...]
    default: str
    example: NDArray[np.int64]
    truth: FloatArray
    weights: FloatArray
    groups: Groups
    columns: Mapping[str, Answer]

    def bucket(self) -> NDArray[np.int64]:
        """True bucket of each row."""
        return self.bounds.bucket(self.truth)

    def errors(self) -> dict[str, FloatArray]:
        """Absolute error of each forecaster on each row."""
        return {name: absolute_error(self.truth, answer.tokens) for name, answer in self.columns.items()}

    def means(
        self, values: Mapping[str, FloatArray], draws: Draws = DEFAULT, where: NDArray[np.bool_] | None = None
    ) -> dict[str, Interval]:
        """Weighted means of values [n], over the rows `where` or all, with intervals."""
        if where is None:
            return mean_intervals(values, self.weights, self.groups, draws)
        chosen = {name: column[where] for name, column in values.items()}
        return mean_intervals(chosen, self.weights[where], self.groups.take(where), draws)


def collect(bundle: Bundle, data: LengthData, part: str = "test") -> Rows:
    """Ask the bundle about every request of the part and lay the answers beside the truth.

    `part` is a name of `mope.data.split.PARTS` or "all". The oracle router is told the bucket of the
    median answer. Raises `DataError` where the part holds no rows.
    """
    chosen = data if part == "all" else data.take(split(data)[part])
    if not len(chosen):
        raise DataError(
            f"{len(data)} rows, none of them in the part {part!r}",
            "at least one row to evaluate",
            "give more data, or --part all where the bundle was not trained on it",
        )
    sizes = np.asarray([len(example.lengths) for example in chosen.examples])
    spread = np.repeat(np.arange(len(sizes)), sizes)
    config = bundle.config
    columns = bundle.columns(chosen.requests, chosen.lengths)
    return Rows(
        data=chosen,
        refused=dict(data.refused),
        notes=tuple(data.notes),
        part=part,
        bounds=config.bounds,
        levels=tuple(config.quantiles),
        default=ROUTED[config.routing],
        example=spread,
        truth=np.asarray([tokens for example in chosen.examples for tokens in example.lengths], np.float64),
        weights=1.0 / sizes[spread],
        groups=Groups.of(np.asarray(chosen.groups)[spread]),
        columns={name: _spread(column, spread) for name, column in columns.items()},
    )


def _spread(column: Column, spread: NDArray[np.int64]) -> Answer:
    def take(values: NDArray[Any] | None) -> FloatArray | None:
        return None if values is None else np.asarray(values, np.float64)[spread]

    return Answer(
        np.asarray(column.tokens, np.float64)[spread],
        take(column.quantiles),
        take(column.low),
        take(column.high),
        take(column.probabilities),
    )
