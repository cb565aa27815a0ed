"""How much memory to keep for a predicted length: a quantile tuned on some scenarios and tested on others.

Objective: tokens/s as the geometric mean of its ratios to quantile 0.9 over the scenarios of training. Allowed is
what keeps p99 TTFT and, as a gap in tokens/s grows with what is served, the gap as a share of throughput, in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp, fsum, log
from statistics import fmean
from typing import Any

from mope.sim import search
from mope.sim.scenario import Scenario, load_scenario
from mope.sim.search import LEAST, P99, PAPER, SLACK
from mope.sim.study import (
    BERT,
    GAP,
    SHARE,
    SINGLE,
    TPS,
    TTFT,
    Runs,
    Tell,
    Variant,
    comparisons,
    run_all,
    table,
    values,
)

QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.9)
TRAIN_SEEDS = (100, 101, 102)
PREDICTORS = {"MAE 80": SINGLE, "BERT": BERT}
METRICS = (TPS, TTFT, P99, f"{GAP}.mean", SHARE, "preempted")


def testing() -> list[Scenario]:
    """The scenarios that the other numbers are tested on, and two more on a machine with little memory."""
    arena = load_scenario("paper/arena")
    assert arena.trace is not None
    slow = replace(arena.trace, speed=1.0)
    small = replace(arena, name="paper/arena on A10G", hardware="llama-2-7b@a10g", trace=slow)
    return [*search.testing(), small, search.unasked(load_scenario("vtc/overload-multi"))]


def study(seeds: Sequence[int], tell: Tell) -> dict[str, Any]:
    """Tune, then test the fastest quantile against 0.9; it wins only where it was allowed."""
    scenarios = search.training()
    tuned = [_variant(quantile, str(quantile), SINGLE) for quantile in QUANTILES]
    runs = run_all(scenarios, tuned, TRAIN_SEEDS, tell)
    rows = [{"quantile": quantile, **rated(runs, str(quantile))} for quantile in QUANTILES]
    fastest = max(rows, key=lambda row: float(row["throughput"]))
    best = fastest["quantile"]
    pairs = [(f"quantile {best}, {name}", f"quantile 0.9, {name}") for name in PREDICTORS]
    variants = [
        _variant(quantile, f"quantile {quantile}, {name}", word)
        for name, word in PREDICTORS.items()
        for quantile in dict.fromkeys((best, 0.9))
    ]
    tests = testing()
    found = run_all(tests, variants, seeds, tell)
    compared = comparisons(found, pairs, METRICS, [scenario.name for scenario in tests])
    return {
        "tried": rows,
        "best": best,
        "table": list(table(found)),
        "compared": compared,
        "wins": fastest["allowed"] and wins(compared),
    }


def _variant(quantile: float, name: str, predictor: str) -> Variant:
    return replace(PAPER, quantile=quantile).variant(name, predictor)


def rated(runs: Runs, name: str) -> dict[str, Any]:
    """Ratios to quantile 0.9: throughput over all scenarios, most p99 TTFT and most gap share; whether allowed."""
    scenarios = list(dict.fromkeys(scenario for scenario, _ in runs))

    def ratio(scenario: str, metric: str) -> float:
        ours, theirs = (fsum(values(runs, scenario, who, metric)) + LEAST for who in (name, "0.9"))
        return ours / theirs

    speed = exp(fmean(log(ratio(one, TPS)) for one in scenarios))
    wait, gap = (max(ratio(one, metric) for one in scenarios) for metric in (P99, SHARE))
    allowed = wait <= 1 + SLACK and gap <= 1 + 5 * SLACK
    return {"throughput": speed, "ttft_p99": wait, "gap_share": gap, "allowed": allowed}


def wins(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether throughput is better in some test, and throughput, p99 TTFT and gap share worse by `SLACK` in none."""
    judged = [row for row in rows if row["metric"] in (TPS, P99, SHARE)]
    better = any(row["judged"] == "better" for row in judged if row["metric"] == TPS)
    return better and not any(row["judged"] == "worse" and abs(row["value"] - 1) > SLACK for row in judged)
