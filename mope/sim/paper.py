"""The claims of Equinox's paper, run again: what holds, at which load, and which part of it makes the difference.

A variant is a policy on a server. The paper's own baselines ran on engines that admit by the prompt alone and read
prompts whole; Equinox brought admission by predicted length and stall-free prefill beside its scheduler. So the
baselines are run both ways, to tell the scheduler's part from the server's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mope.sim.compare import Difference, holm
from mope.sim.scenario import Scenario, load_scenario
from mope.sim.study import (
    EQUINOX,
    GAP,
    JAIN,
    MOPE,
    OWED,
    PLAIN,
    SINGLE,
    TPS,
    TTFT,
    Runs,
    Tell,
    Variant,
    at_load,
    compared,
    comparisons,
    run_all,
)

SCENARIOS = ("balanced", "stochastic", "overload", "dynamic", "arena", "sharegpt", "sharegpt-equal")
LOADS = (0.5, 0.8, 0.9, 1.0, 1.1, 1.3)
VARIANTS = (
    Variant("FCFS, plain server", "fcfs", "none", PLAIN),
    Variant("VTC, plain server", "vtc", "none", PLAIN),
    Variant("VTC", "vtc", MOPE),
    Variant("VTC+Single", "vtc:forecast", SINGLE),
    Variant("Equinox+MoPE", EQUINOX, MOPE),
    Variant("Equinox alpha 0.9", "equinox:alpha=0.9,beta=0.1,delta=0.1", MOPE),
)


@dataclass(frozen=True)
class Claim:
    """What the paper says of `ours` against `theirs`: `value` is a ratio, or a difference where `points`."""

    text: str
    scenario: str
    metric: str
    ours: str
    theirs: str
    value: float
    points: bool = False

    @property
    def at(self) -> str:
        """The scenario's whole name."""
        return f"paper/{self.scenario}"


FULL, BASE_VTC, BASE_FCFS = "Equinox+MoPE", "VTC, plain server", "FCFS, plain server"
CLAIMS = (
    Claim("throughput 1.3x FCFS", "balanced", TPS, FULL, BASE_FCFS, 1.3),
    Claim("throughput 1.3x VTC", "balanced", TPS, FULL, BASE_VTC, 1.3),
    Claim("TTFT 60 % below VTC", "balanced", TTFT, FULL, BASE_VTC, 0.4),
    Claim("Jain 13 points above VTC", "overload", JAIN, FULL, BASE_VTC, 0.13, True),
    Claim("largest gap 42 % below VTC", "overload", f"{OWED}.max", FULL, BASE_VTC, 866 / 1505),
    Claim("mean gap 86 % below VTC", "overload", f"{OWED}.mean", FULL, BASE_VTC, 151 / 1106),
    Claim("the same, windowed", "overload", f"{GAP}.max", FULL, BASE_VTC, 866 / 1505),
    Claim("the same, windowed mean", "overload", f"{GAP}.mean", FULL, BASE_VTC, 151 / 1106),
    Claim("VTC+Single has a larger gap than VTC", "overload", f"{OWED}.max", "VTC+Single", "VTC", 1.0),
    Claim("alpha 0.9 costs 20 % throughput", "overload", TPS, "Equinox alpha 0.9", FULL, 0.8),
)


def scenarios(hardware: str | None = None) -> list[Scenario]:
    """The paper's, each on its own hardware or all on another."""
    found = [load_scenario(f"paper/{name}") for name in SCENARIOS]
    return [replace(one, hardware=hardware or one.hardware) for one in found]


def run_claims(seeds: Sequence[int], tell: Tell, hardware: str | None = None) -> Runs:
    """Every variant in every scenario."""
    return run_all(scenarios(hardware), VARIANTS, seeds, tell)


def load_sweep(seeds: Sequence[int], tell: Tell) -> list[dict[str, Any]]:
    """Equinox against the others by load, 1.0 being the rates of `stochastic`."""
    chosen = [variant for variant in VARIANTS if variant.name in {FULL, "VTC", BASE_VTC, BASE_FCFS}]
    pairs = [(FULL, name) for name in ("VTC", BASE_VTC, BASE_FCFS)]
    found = {
        load: replace(at_load(load_scenario("paper/stochastic"), load), name=f"load {load}") for load in LOADS
    }
    runs = run_all(found.values(), chosen, seeds, tell)
    rows = comparisons(runs, pairs, (TPS, TTFT, JAIN, f"{GAP}.mean"), [one.name for one in found.values()])
    return [{"load": float(row["scenario"].removeprefix("load ")), **row} for row in rows]


def losses(runs: Runs) -> list[dict[str, Any]]:
    """Equinox against every baseline in every scenario by what users feel, fairness and throughput."""
    scenarios = list(dict.fromkeys(scenario for scenario, _ in runs))
    pairs = [(FULL, name) for name in ("VTC", BASE_VTC, BASE_FCFS)]
    return comparisons(runs, pairs, (TPS, TTFT, "ttft_s.p99", JAIN, f"{GAP}.mean"), scenarios)


def check(runs: Runs) -> list[dict[str, Any]]:
    """Each claim: the paper's number, ours with its interval, p after Holm's correction, and whether it holds."""
    found = [
        (claim, compared(runs, claim.at, claim.metric, claim.ours, claim.theirs, claim.points))
        for claim in CLAIMS
        if (claim.at, claim.ours) in runs
    ]
    corrected = holm({claim.text: result.p for claim, result in found})
    return [
        {
            "claim": claim.text,
            "scenario": claim.scenario,
            "ours": claim.ours,
            "theirs": claim.theirs,
            "paper": claim.value,
            **result._asdict(),
            "p": corrected[claim.text],
            "verdict": verdict(claim, result, corrected[claim.text]),
        }
        for claim, result in found
    ]


def verdict(claim: Claim, found: Difference, p: float) -> str:
    """holds: as much as the paper says; smaller: the same way, but less; reverse; or no difference shown.

    Where the paper gives a direction only (a ratio of 1), any difference that way holds.
    """
    nothing = 1.0 if found.ratio else 0.0
    up = claim.value > nothing or (claim.value == nothing and claim.ours == "VTC+Single")
    if p >= 0.05 or found.low <= nothing <= found.high:
        return "no difference shown"
    if (found.value > nothing) != up:
        return "reverse"
    reached = found.high >= claim.value if up else found.low <= claim.value
    return "holds" if reached else "smaller"
