"""The claims of Equinox's paper, run again: what holds, at which load, and which part of it makes the difference.

A variant is a policy on a server. The paper's own baselines ran on engines that admit by the prompt alone and read
prompts whole; Equinox brought admission by predicted length and stall-free prefill beside its scheduler. So the
baselines are run both ways, to tell the scheduler's part from the server's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mope.sim.arrivals import Piece
from mope.sim.compare import Difference, difference, holm, ratio
from mope.sim.run import simulate
from mope.sim.scenario import Scenario, load_scenario
from mope.sim.table import mean, number

SCENARIOS = ("balanced", "stochastic", "overload", "dynamic", "arena")
LOADS = (0.5, 0.7, 0.9, 1.0, 1.2, 1.5)
PLAIN = {"loop": "continuous", "admission": "prompt"}
OWN = {"loop": "chunked", "admission": "reserve", "step_tokens": 1024}
MOPE, SINGLE = "noise:33", "noise:80"  # the paper's errors of its mixture and of a single proxy, in tokens
METRICS = {
    "tokens_per_s": "tokens/s",
    "ttft_s.mean": "mean TTFT, s",
    "ttft_s.p90": "p90 TTFT, s",
    "latency_s.mean": "mean latency, s",
    "jain_served": "Jain of service",
    "jain_ttft": "Jain of TTFT",
    "service_difference.accumulated.max": "largest gap",
    "service_difference.accumulated.mean": "mean gap",
    "busy": "busy share",
}


@dataclass(frozen=True)
class Variant:
    """A policy with a predictor on a server."""

    name: str
    policy: str
    predictor: str
    server: Mapping[str, Any] = field(default_factory=lambda: OWN)


VARIANTS = (
    Variant("FCFS, plain server", "fcfs", "none", PLAIN),
    Variant("VTC, plain server", "vtc", "none", PLAIN),
    Variant("Equinox+MoPE, plain server", "equinox", MOPE, PLAIN),
    Variant("FCFS", "fcfs", MOPE),
    Variant("VTC", "vtc", MOPE),
    Variant("VTC+Single", "vtc:forecast", SINGLE),
    Variant("VTC+MoPE", "vtc:forecast", MOPE),
    Variant("Equinox+Single", "equinox", SINGLE),
    Variant("Equinox+MoPE", "equinox", MOPE),
    Variant("Equinox+oracle", "equinox:truth=true", "exact"),
    Variant("Equinox alpha 0.9", "equinox:alpha=0.9,beta=0.1", MOPE),
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


FULL, BASE_VTC, BASE_FCFS = "Equinox+MoPE", "VTC, plain server", "FCFS, plain server"
GAP = "service_difference.accumulated"
CLAIMS = (
    Claim("throughput 1.3x FCFS", "balanced", "tokens_per_s", FULL, BASE_FCFS, 1.3),
    Claim("throughput 1.3x VTC", "balanced", "tokens_per_s", FULL, BASE_VTC, 1.3),
    Claim("TTFT 60 % below VTC", "balanced", "ttft_s.mean", FULL, BASE_VTC, 0.4),
    Claim("Jain 13 points above VTC", "overload", "jain_served", FULL, BASE_VTC, 0.13, True),
    Claim("largest gap 42 % below VTC", "overload", f"{GAP}.max", FULL, BASE_VTC, 866 / 1505),
    Claim("mean gap 86 % below VTC", "overload", f"{GAP}.mean", FULL, BASE_VTC, 151 / 1106),
    Claim("VTC+Single has a larger gap than VTC", "overload", f"{GAP}.max", "VTC+Single", "VTC", 1.0),
    Claim("alpha 0.9 costs 20 % throughput", "overload", "tokens_per_s", "Equinox alpha 0.9", FULL, 0.8),
)
Runs = dict[tuple[str, str], list[dict[str, Any]]]  # (scenario, variant) -> a summary for each seed
Tell = Callable[[str], None]


def run_all(
    scenarios: Sequence[str], variants: Sequence[Variant], seeds: int, tell: Tell, hardware: str | None = None
) -> Runs:
    """Every variant in every scenario, the same seeds for all."""
    found: Runs = {}
    for name in scenarios:
        scenario = load_scenario(f"paper/{name}")
        scenario = replace(scenario, hardware=hardware or scenario.hardware)
        for variant in variants:
            tell(f"{name}: {variant.name}")
            found[name, variant.name] = [one(scenario, variant, seed) for seed in range(seeds)]
    return found


def one(scenario: Scenario, variant: Variant, seed: int) -> dict[str, Any]:
    """The summary of one run."""
    server = replace(scenario.server, **variant.server)
    return simulate(replace(scenario, server=server), variant.policy, variant.predictor, seed).summary


def values(runs: Runs, scenario: str, variant: str, metric: str) -> list[float]:
    """One number for each seed."""
    found = [number(summary, metric) for summary in runs[scenario, variant]]
    return [value for value in found if value is not None]


def table(runs: Runs) -> Iterator[dict[str, Any]]:
    """Scenario, variant and the mean of every metric with its interval."""
    for scenario, variant in runs:
        means = {metric: mean(values(runs, scenario, variant, metric))._asdict() for metric in METRICS}
        yield {"scenario": scenario, "variant": variant, **means}


def check(runs: Runs) -> list[dict[str, Any]]:
    """Each claim: the paper's number, ours with its interval, p after Holm's correction, and whether it holds."""
    found = [(claim, _compared(runs, claim)) for claim in CLAIMS if (claim.scenario, claim.ours) in runs]
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


def _compared(runs: Runs, claim: Claim) -> Difference:
    ours, theirs = (values(runs, claim.scenario, who, claim.metric) for who in (claim.ours, claim.theirs))
    found = None if claim.points else ratio(ours, theirs)
    return found or difference(ours, theirs)


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


def at_load(scenario: Scenario, factor: float) -> Scenario:
    """The scenario with all rates times `factor`."""
    clients = tuple(
        replace(
            client, pieces=tuple(Piece(s, first * factor, last * factor) for s, first, last in client.pieces)
        )
        for client in scenario.clients
    )
    return replace(scenario, clients=clients)


def load_sweep(seeds: int, tell: Tell) -> list[dict[str, Any]]:
    """Equinox and VTC on the same server, and VTC on the plain one, by load: ratios of throughput and TTFT."""
    chosen = {variant.name: variant for variant in VARIANTS}
    rows = []
    for load in LOADS:
        tell(f"load {load}")
        scenario = at_load(load_scenario("paper/stochastic"), load)
        runs = {
            ("s", name): [one(scenario, chosen[name], seed) for seed in range(seeds)]
            for name in (FULL, "VTC", BASE_VTC)
        }
        for other in ("VTC", BASE_VTC):
            for metric in ("tokens_per_s", "ttft_s.mean"):
                ours, theirs = (values(runs, "s", who, metric) for who in (FULL, other))
                found = ratio(ours, theirs)
                if found is not None:
                    rows.append({"load": load, "against": other, "metric": metric, **found._asdict()})
    return rows
