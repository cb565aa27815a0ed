"""What an evaluation found, as plain data; `Report.to_dict` makes it JSON, `mope.evaluation.tables` readable."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mope.evaluation.bootstrap import Interval

ORACLE_NOTE = "oracle router uses the true bucket; it is an upper bound no user gets"


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What was measured on. `samples` counts answers; `repeated` counts examples with several answers."""

    digest: str
    part: str
    examples: int
    samples: int
    groups: int
    repeated: int
    capped: int
    refused: dict[str, int]
    mean_tokens: float
    median_tokens: float
    p99_tokens: float
    short_at_most: float
    medium_at_most: float


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One forecaster: each metric with its interval, None where it does not apply to this forecaster."""

    name: str
    metrics: dict[str, Interval | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Mean absolute error of `model` minus that of `baseline`; below 0 the model is better."""

    model: str
    baseline: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """Coverage and width of the 80 % interval where the router said `bucket`."""

    bucket: str
    samples: int
    coverage: Interval
    width: Interval


@dataclass(frozen=True, slots=True)
class BucketReport:
    """Predicted against true buckets; `confusion[true][predicted]` sums weights."""

    accuracy: Interval
    macro_f1: Interval
    confusion: list[list[float]]


@dataclass(frozen=True, slots=True)
class FloorReport:
    """Prompts with several answers: the noise floor, and each forecaster's MAE and skill on those prompts."""

    prompts: int
    noise_floor: Interval
    mae: dict[str, Interval]
    skill: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class LevelRow:
    """How often the truth was at or below the forecast quantile at probability `level`."""

    level: float
    observed: Interval


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One slice of the rows: MAE of each forecaster, coverage of those that give an interval."""

    value: str
    samples: int
    groups: int
    mae: dict[str, Interval]
    coverage: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class DecileRow:
    """One tenth of the rows by true length, low to high tokens inclusive: MAE of each forecaster."""

    low: float
    high: float
    samples: int
    mae: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Report:
    """All of an evaluation. Every `Interval` holds 95 % bounds by groups (conversations)."""

    data: DataFacts
    default: str
    seed: int
    n_boot: int
    columns: tuple[ColumnReport, ...]
    comparisons: tuple[Comparison, ...]
    coverage: tuple[CoverageRow, ...]
    buckets: dict[str, BucketReport]
    floor: FloorReport | None
    reliability: dict[str, tuple[LevelRow, ...]]
    deciles: tuple[DecileRow, ...]
    by: str | None
    slices: tuple[SliceRow, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values; numbers that are not finite become None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
