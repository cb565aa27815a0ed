"""The rows of an evaluation cut along something: predicted bucket, quantile level, length, source, model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mope.evaluation.bootstrap import Draws
from mope.evaluation.report import CoverageRow, DecileRow, LevelRow, SliceRow
from mope.evaluation.rows import Rows
from mope.types import BUCKETS

SLICES = ("source", "model", "bucket")


def coverage_by_bucket(rows: Rows, draws: Draws) -> tuple[CoverageRow, ...]:
    """The default routing's interval where its router said short, medium, long."""
    answer = rows.columns[rows.default]
    values, predicted = answer.interval_values(rows.truth), answer.bucket()
    if predicted is None or not values:
        return ()
    found = []
    for number in np.unique(predicted):
        where = predicted == number
        means = rows.means(values, draws, where)
        found.append(CoverageRow(BUCKETS[number], int(where.sum()), means["coverage"], means["width"]))
    return tuple(found)


def reliability(rows: Rows, draws: Draws) -> dict[str, tuple[LevelRow, ...]]:
    """For each forecaster with quantiles: how often the truth was at or below each of them."""
    found = {}
    for name, answer in rows.columns.items():
        if answer.quantiles is not None:
            below = (rows.truth[:, None] <= answer.quantiles).astype(np.float64)
            means = rows.means({str(level): below[:, k] for k, level in enumerate(rows.levels)}, draws)
            found[name] = tuple(LevelRow(level, means[str(level)]) for level in rows.levels)
    return found


def deciles(rows: Rows, draws: Draws) -> tuple[DecileRow, ...]:
    """Error by tenth of the true lengths; fewer than ten rows where many lengths are equal."""
    edges = np.unique(np.quantile(rows.truth, np.arange(1, 10) / 10))
    tenth = np.searchsorted(edges, rows.truth)
    errors = rows.errors()
    found = []
    for number in np.unique(tenth):
        where = tenth == number
        lengths = rows.truth[where]
        means = rows.means(errors, draws, where)
        found.append(DecileRow(float(lengths.min()), float(lengths.max()), int(where.sum()), means))
    return tuple(found)


def slices(rows: Rows, by: str, draws: Draws) -> tuple[SliceRow, ...]:
    """Error and coverage for each value of `by` (one of `SLICES`; bucket is the true one)."""
    labels = _labels(rows, by)
    errors = rows.errors()
    inside = {
        name: values["coverage"]
        for name, answer in rows.columns.items()
        if (values := answer.interval_values(rows.truth))
    }
    found = []
    for value in BUCKETS if by == "bucket" else np.unique(labels).tolist():
        where = labels == value
        if where.any():
            mae, coverage = rows.means(errors, draws, where), rows.means(inside, draws, where)
            groups = rows.groups.take(where).count
            found.append(SliceRow(value, int(where.sum()), groups, mae, coverage))
    return tuple(found)


def _labels(rows: Rows, by: str) -> NDArray[np.str_]:
    if by == "bucket":
        return np.asarray(BUCKETS)[rows.bucket()]
    values = rows.data.sources if by == "source" else rows.data.models
    return np.asarray(values, dtype=np.str_)[rows.example]
