"""The evaluation protocol: one bundle on one data set, every metric with its interval.

A prompt with k sampled answers gives k rows of weight 1/k (`mope.evaluation.rows`). Intervals and tests draw
whole groups (conversations).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mope.data.records import LengthData
from mope.data.split import PARTS
from mope.errors import ConfigError
from mope.evaluation import metrics
from mope.evaluation.bootstrap import (
    DEFAULT,
    Draws,
    Interval,
    holm,
    interval,
    median_interval,
    paired_difference,
    slope_interval,
)
from mope.evaluation.ranks import pair_sums
from mope.evaluation.report import (
    ORACLE_NOTE,
    BucketReport,
    ColumnReport,
    Comparison,
    DataFacts,
    FloorReport,
    Report,
)
from mope.evaluation.rows import ROUTED, Answer, Bundle, Rows, collect
from mope.evaluation.slices import SLICES, coverage_by_bucket, deciles, reliability, slices
from mope.types import BUCKETS

FloatArray = NDArray[np.float64]

ORACLE = "MoPE (oracle router)"
CONSTANT = "constant"
BASELINES = ("proxy", CONSTANT, "surface GBDT", "context GBDT")


def evaluate(
    bundle: Bundle,
    data: LengthData,
    by: str | None = None,
    part: str = "test",
    seed: int = 0,
    n_boot: int = DEFAULT.n_boot,
) -> Report:
    """Measure `bundle` on the rows of `data` whose group hashes into `part` ("all" takes every row).

    `by` adds a table by "source", "model" or (true) "bucket". Raises `ConfigError` for an unknown
    `by` or `part`, `DataError` where the part holds no rows.
    """
    check(by, part)
    return measure(collect(bundle, data, part), by, seed, n_boot)


def check(by: str | None, part: str) -> None:
    """Raise `ConfigError` for a slice or part that does not exist."""
    if by is not None and by not in SLICES:
        raise ConfigError(f"a table by {by!r}", " or ".join(SLICES), "choose one of these, or leave it out")
    if part not in (*PARTS, "all"):
        raise ConfigError(f"the part {part!r}", " or ".join((*PARTS, "all")), "choose one of these")


def measure(rows: Rows, by: str | None = None, seed: int = 0, n_boot: int = DEFAULT.n_boot) -> Report:
    """The report of rows that were collected."""
    draws = Draws(n_boot, seed)
    return Report(
        data=_facts(rows),
        default=rows.default,
        seed=seed,
        n_boot=n_boot,
        columns=tuple(ColumnReport(name, _metrics(rows, a, draws)) for name, a in rows.columns.items()),
        comparisons=_comparisons(rows, draws),
        coverage=coverage_by_bucket(rows, draws),
        buckets=_buckets(rows, draws),
        floor=_floor(rows, draws),
        reliability=reliability(rows, draws),
        deciles=deciles(rows, draws),
        by=by,
        slices=slices(rows, by, draws) if by else (),
        notes=_notes(rows),
    )


def _facts(rows: Rows) -> DataFacts:
    examples = rows.data.examples
    return DataFacts(
        digest=rows.data.digest(),
        part=rows.part,
        examples=len(examples),
        samples=len(rows.truth),
        groups=rows.groups.count,
        repeated=sum(len(example.lengths) > 1 for example in examples),
        capped=_capped(rows),
        refused=dict(rows.refused),
        mean_tokens=metrics.mean(rows.truth, rows.weights),
        median_tokens=metrics.weighted_median(rows.truth, rows.weights),
        p99_tokens=float(np.quantile(rows.truth, 0.99)),
        short_at_most=float(rows.bounds.short),
        medium_at_most=float(rows.bounds.medium),
    )


def _capped(rows: Rows) -> int:
    examples = rows.data.examples
    return sum(e.cap is not None and tokens >= e.cap for e in examples for tokens in e.lengths)


def _metrics(rows: Rows, answer: Answer, draws: Draws) -> dict[str, Interval | None]:
    truth = rows.truth
    values = {
        "mae": metrics.absolute_error(truth, answer.tokens),
        "acc_50": metrics.within(truth, answer.tokens, 50),
        "acc_100": metrics.within(truth, answer.tokens, 100),
        "log_mae": metrics.log_error(truth, answer.tokens),
        **answer.interval_values(truth),
    }
    if answer.quantiles is not None:
        values["pinball"] = metrics.pinball(truth, answer.quantiles, rows.levels)
    pairs = pair_sums(truth, answer.tokens, rows.weights)
    return {
        **dict.fromkeys(("pinball", "coverage", "width")),
        **rows.means(values, draws),
        "median_ae": median_interval(values["mae"], rows.weights, rows.groups, draws),
        "tau_b": slope_interval(*pairs.tau_b(), rows.groups, -1.0, 1.0),
        "order_accuracy": slope_interval(*pairs.order_accuracy(), rows.groups, 0.0, 1.0),
    }


def _comparisons(rows: Rows, draws: Draws) -> tuple[Comparison, ...]:
    errors = rows.errors()
    names = [name for name in BASELINES if name in errors]
    model = errors[rows.default]
    found = [paired_difference(model, errors[name], rows.weights, rows.groups, draws) for name in names]
    corrected = holm([d.p for d in found])
    return tuple(
        Comparison(rows.default, name, d.value, d.low, d.high, d.p, p_holm)
        for name, d, p_holm in zip(names, found, corrected, strict=True)
    )


def _buckets(rows: Rows, draws: Draws) -> dict[str, BucketReport]:
    """Of the default routing and each baseline that names buckets; both routings share one router."""
    found = {}
    for name in (rows.default, *BASELINES):
        predicted = rows.columns[name].bucket() if name in rows.columns else None
        if predicted is not None:
            found[name] = _bucket_report(rows, predicted, draws)
    return found


def _bucket_report(rows: Rows, predicted: NDArray[np.int64], draws: Draws) -> BucketReport:
    size = len(BUCKETS)
    cell = rows.bucket() * size + predicted
    sums = rows.groups.sums(*(rows.weights * (cell == number) for number in range(size * size)))

    def squares(flat: FloatArray) -> FloatArray:
        return flat.reshape(*flat.shape[:-1], size, size)

    return BucketReport(
        accuracy=interval(lambda s: metrics.bucket_accuracy(squares(s)), sums, draws),
        macro_f1=interval(lambda s: metrics.macro_f1(squares(s)), sums, draws),
        confusion=squares(sums.sum(axis=0)).tolist(),
    )


def _floor(rows: Rows, draws: Draws) -> FloorReport | None:
    repeated = [i for i, example in enumerate(rows.data.examples) if len(example.lengths) > 1]
    if not repeated:
        return None
    where = np.isin(rows.example, repeated)
    floor = np.zeros(len(where))
    # in rising order inside each prompt, not in row order: only sums over whole prompts are used
    floor[where] = np.concatenate(
        [metrics.leave_one_out_errors(rows.data.examples[i].lengths) for i in repeated]
    )
    noise = rows.means({"floor": floor}, draws, where)["floor"]
    skill = _skill(rows, floor, where, draws)
    return FloorReport(len(repeated), noise, rows.means(rows.errors(), draws, where), skill)


def _skill(rows: Rows, floor: FloatArray, where: NDArray[np.bool_], draws: Draws) -> dict[str, Interval]:
    errors = {name: (rows.weights * error)[where] for name, error in rows.errors().items()}
    constant = errors.pop(CONSTANT, None)
    if constant is None:
        return {}
    groups, noise = rows.groups.take(where), (rows.weights * floor)[where]

    def skill(sums: FloatArray) -> FloatArray:
        return metrics.skill(sums[..., 0], sums[..., 1], sums[..., 2])

    return {
        name: interval(skill, groups.sums(constant, error, noise), draws) for name, error in errors.items()
    }


def _notes(rows: Rows) -> tuple[str, ...]:
    notes = []
    if ORACLE in rows.columns:
        notes.append(ORACLE_NOTE)
    if rows.part in ("all", "train"):
        notes.append(f"part {rows.part} holds rows the bundle was trained on, if it was trained on this data")
    if rows.groups.count < 2:
        notes.append("one conversation only: no intervals")
    capped = _capped(rows)
    if capped:
        notes.append(
            f"{capped} of {len(rows.truth)} answers were cut at their cap: their true lengths are unknown"
        )
    return (*notes, *rows.notes)


__all__ = ["ROUTED", "check", "collect", "evaluate", "measure"]
