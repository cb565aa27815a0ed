"""Runs into a table: one row for each scenario, policy and predictor, with 95 % intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any, NamedTuple

# Quantiles of Student's t at 0.975 by degrees of freedom: intervals of a few seeds.
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
)  # fmt: skip
NORMAL = 1.96
SHOWN = {
    "tokens_per_s": "tokens/s",
    "ttft_s.mean": "TTFT s",
    "ttft_s.p90": "TTFT p90",
    "latency_s.mean": "latency s",
    "tpot_s.mean": "TPOT s",
    "jain_served": "Jain",
    "service_difference.windowed.max": "diff max",
    "service_difference.windowed.mean": "diff mean",
    "refused_share": "refused",
}


class Mean(NamedTuple):
    """A mean over seeds with the ends of its 95 % interval; both are the mean where there is one seed."""

    value: float
    low: float
    high: float


def mean(values: Sequence[float]) -> Mean:
    """Mean and Student's 95 % interval."""
    value = fmean(values)
    if len(values) < 2:
        return Mean(value, value, value)
    freedom = len(values) - 1
    t = T_975[freedom - 1] if freedom <= len(T_975) else NORMAL
    reach = t * stdev(values) / sqrt(len(values))
    return Mean(value, value - reach, value + reach)


def number(summary: Mapping[str, Any], key: str) -> float | None:
    """The number under a dotted key; None where it is missing."""
    if key == "refused_share":
        came = summary["requests"]
        return 1 - summary["done"] / came if came else None
    found: Any = summary
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return None if found is None else float(found)


def rows(runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs (scenario, policy, predictor, seed, summary) put together over seeds, in the order they came."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        key = run["scenario"], run["policy"], run["predictor"]
        groups.setdefault(key, []).append(run["summary"])
    return [
        {
            "scenario": scenario,
            "policy": policy,
            "predictor": predictor,
            "seeds": len(found),
            **{key: _over(found, key) for key in SHOWN},
        }
        for (scenario, policy, predictor), found in groups.items()
    ]


def _over(summaries: Sequence[Mapping[str, Any]], key: str) -> dict[str, float] | None:
    values = [value for one in summaries if (value := number(one, key)) is not None]
    return mean(values)._asdict() if values else None
