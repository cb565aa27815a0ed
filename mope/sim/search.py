"""Beyond the paper: Equinox's numbers drawn at random, tuned on some scenarios, tested on others.

Objective: the mean windowed service difference, an output token counting two and four prompt tokens, as the
geometric mean of its ratios to the paper's numbers over the scenarios of training. Allowed is only what keeps
throughput and p99 TTFT in every one of them, but for `SLACK`. Best first half by half, then the rest with more seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import exp, fsum, log
from statistics import fmean
from typing import Any

import numpy as np

from mope.equinox import AdmissionConfig, Priors
from mope.sim.scenario import Scenario, load_scenario
from mope.sim.study import (
    BERT,
    GAP,
    JAIN,
    MOPE,
    OWN,
    PRICED,
    SINGLE,
    TPS,
    TTFT,
    Runs,
    Tell,
    Variant,
    at_load,
    comparisons,
    run_all,
    table,
    values,
)

AIMS = (f"{GAP}.mean", f"{PRICED}.mean")
P99 = "ttft_s.p99"
SLACK = 0.01
LEAST = 1e-9  # a gap of nothing has a ratio, too
TRAIN_SEEDS = (100, 101, 102, 103, 104, 105)
ROUNDS = ((2, 0.25), (6, 0.0))  # seeds, share that goes on; 0: the best one
METRICS = (*AIMS, TPS, P99, TTFT, JAIN)


@dataclass(frozen=True)
class Numbers:
    """What is searched; `beta` is 1 - alpha. `quantile` of the length that KV memory is kept for."""

    alpha: float = 0.7
    delta: float = 0.1
    resource: str = "rate"
    quantile: float = 0.9
    bypass_limit: int = 16

    def variant(self, name: str, predictor: str) -> Variant:
        """Equinox with these numbers."""
        words = f"alpha={self.alpha:g},beta={1 - self.alpha:g},delta={self.delta:g},resource={self.resource}"
        admission = AdmissionConfig(bypass_limit=self.bypass_limit)
        return Variant(name, f"equinox:{words}", predictor, OWN, admission, Priors(quantile=self.quantile))

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Numbers:
        """At random."""
        return cls(
            round(float(rng.uniform(0.05, 1.0)), 2),
            float(rng.choice((0.0, 0.01, 0.03, 0.1, 0.3, 1.0))),
            str(rng.choice(("rate", "work"))),
            float(rng.choice((0.5, 0.6, 0.7, 0.8, 0.9, 0.95))),
            int(rng.choice((0, 4, 16, 64, 256))),
        )


PAPER = Numbers()


def training() -> list[Scenario]:
    """Where the numbers are tuned: one of them on a machine with little memory."""
    found = [load_scenario(f"paper/{name}") for name in ("balanced", "overload", "dynamic")]
    small = replace(found[1], hardware="llama-2-7b@a10g")
    return [*found, replace(at_load(small, 0.19), name="paper/overload on A10G")]


def testing() -> list[Scenario]:
    """Where they are judged: other loads, clients, lengths and machines."""
    busy = replace(at_load(load_scenario("paper/stochastic"), 1.3), name="paper/stochastic, load 1.3")
    names = (
        "paper/arena",
        "paper/sharegpt",
        "paper/sharegpt-equal",
        "vtc/poisson_short_long",
        "vtc/on_off_overload",
    )
    return [busy, *(unasked(load_scenario(name)) for name in names)]


def unasked(scenario: Scenario) -> Scenario:
    """Without the lengths that VTC's requests ask for, on the machine of its runs as profiled for all engines."""
    own = scenario.name.startswith("vtc/")
    return replace(scenario, declared="none", hardware="llama-2-7b@a10g") if own else scenario


def study(tries: int, seeds: Sequence[int], tell: Tell, seed: int = 0) -> dict[str, Any]:
    """Search, then test the best against the paper's numbers and against VTC."""
    tried = search(tries, tell, seed)
    best = tried[0]["numbers"]
    variants = [
        variant
        for predictor, label in ((MOPE, "MAE 33"), (SINGLE, "MAE 80"), (BERT, "BERT"))
        for variant in (
            best.variant(f"searched, {label}", predictor),
            PAPER.variant(f"paper's, {label}", predictor),
        )
    ]
    vtc = Variant("VTC, MAE 80", "vtc", SINGLE)
    scenarios = testing()
    runs = run_all(scenarios, [*variants, vtc], seeds, tell)
    pairs = [(one.name, other.name) for one, other in zip(variants[::2], variants[1::2], strict=True)]
    pairs.append(("searched, MAE 80", vtc.name))
    rows = comparisons(runs, pairs, METRICS, [scenario.name for scenario in scenarios])
    return {
        "study": "search",
        "seeds": len(seeds),
        "tries": tries,
        "train": [scenario.name for scenario in training()],
        "numbers": {"searched": asdict(best), "paper": asdict(PAPER)},
        "tried": [{**row, "numbers": asdict(row["numbers"])} for row in tried],
        "table": list(table(runs)),
        "compared": rows,
        "wins": wins([row for row in rows if row["theirs"].startswith("paper's")]),
    }


def search(tries: int, tell: Tell, seed: int = 0) -> list[dict[str, Any]]:
    """Numbers with their ratios to the paper's in training, best first; what is not allowed comes last."""
    rng = np.random.default_rng(seed)
    left = [PAPER, *(Numbers.draw(rng) for _ in range(tries))]
    out: list[dict[str, Any]] = []
    for count, share in ROUNDS:
        rows = _round(left, TRAIN_SEEDS[:count], tell)
        keep = max(1, round(share * len(rows)))
        out, left = [*rows, *out[len(rows) :]], [row["numbers"] for row in rows[:keep]]
        if PAPER not in left:
            left.append(PAPER)
    return out


def _round(left: Sequence[Numbers], seeds: Sequence[int], tell: Tell) -> list[dict[str, Any]]:
    named = {str(place): numbers for place, numbers in enumerate(left)}
    variants = [numbers.variant(name, SINGLE) for name, numbers in named.items()]
    runs = run_all(training(), variants, seeds, tell)
    paper = str(left.index(PAPER))
    rows = [
        {"numbers": numbers, "seeds": len(seeds), **rated(runs, name, paper)}
        for name, numbers in named.items()
    ]
    return sorted(rows, key=lambda row: (not row["allowed"], row["gap"]))


def rated(runs: Runs, name: str, paper: str) -> dict[str, Any]:
    """Ratios to the paper over all scenarios: gap, least throughput, most p99 TTFT; and whether that is allowed."""
    scenarios = list(dict.fromkeys(scenario for scenario, _ in runs))
    gap = exp(fmean(log(_share(runs, one, name, paper, aim)) for one in scenarios for aim in AIMS))
    speed = min(_share(runs, one, name, paper, TPS) for one in scenarios)
    wait = max(_share(runs, one, name, paper, P99) for one in scenarios)
    return {
        "gap": gap,
        "throughput": speed,
        "ttft_p99": wait,
        "allowed": speed >= 1 - SLACK and wait <= 1 + SLACK,
    }


def _share(runs: Runs, scenario: str, name: str, paper: str, metric: str) -> float:
    ours, theirs = (fsum(values(runs, scenario, who, metric)) + LEAST for who in (name, paper))
    return ours / theirs


def wins(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether some gap is smaller, and nothing of gap, throughput and p99 TTFT worse than by `SLACK`, in any test."""
    judged = [row for row in rows if row["metric"] in (*AIMS, TPS, P99)]
    better = any(row["judged"] == "better" for row in judged if row["metric"] in AIMS)
    return better and not any(row["judged"] == "worse" and abs(row["value"] - 1) > SLACK for row in judged)
