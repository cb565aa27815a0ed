"""What studies share: variants of policy, predictor and server, run over the same seeds and compared in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from mope.equinox import AdmissionConfig, Priors
from mope.sim.arrivals import Piece
from mope.sim.compare import Difference, Test, difference, holm, ratio, student_p
from mope.sim.run import RunConfig, simulate_as
from mope.sim.scenario import Scenario
from mope.sim.table import mean, number

GAP = "service_difference.windowed"  # VTC's service difference, as in its Table 2
OWED = "service_difference.accumulated"
PRICED = "service_difference.windowed_priced"
SHARE = "gap_share"  # the mean windowed gap over throughput
TPS, TTFT, JAIN = "tokens_per_s", "ttft_s.mean", "jain_served"
METRICS = {
    TPS: "tokens/s",
    TTFT: "mean TTFT, s",
    "ttft_s.p90": "p90 TTFT, s",
    "ttft_s.p99": "p99 TTFT, s",
    "latency_s.mean": "mean latency, s",
    JAIN: "Jain of service",
    "jain_ttft": "Jain of TTFT",
    f"{GAP}.max": "windowed gap, max",
    f"{GAP}.mean": "mean",
    f"{GAP}.var": "variance",
    f"{PRICED}.mean": "mean, output x 4",
    f"{OWED}.max": "accumulated gap, max",
    f"{OWED}.mean": "mean of it",
    "busy": "busy share",
    "mfu": "MFU",
    "mbu": "MBU",
}
HIGHER = (TPS, JAIN, "jain_ttft")  # better when larger; of utilisation nothing is said
PLAIN = {"loop": "continuous", "admission": "prompt"}
CHUNKED = {"loop": "chunked", "admission": "prompt", "step_tokens": 1024}
OWN = {"loop": "chunked", "admission": "reserve", "step_tokens": 1024}
MOPE, SINGLE = "noise:33", "noise:80"  # the paper's errors of its mixture and of a single proxy, in tokens
BERT = "confusion:bert-lmsys"
EQUINOX = "equinox:preset=paper"  # whatever the defaults
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """A policy with a predictor on a server."""

    name: str
    policy: str
    predictor: str
    server: Mapping[str, Any] = field(default_factory=lambda: OWN)
    admission: AdmissionConfig = field(default_factory=lambda: AdmissionConfig(bypass_limit=16))
    priors: Priors = field(default_factory=lambda: Priors(quantile=0.9))

    def on(self, scenario: Scenario) -> Scenario:
        """A scenario on its server."""
        return replace(scenario, server=replace(scenario.server, **self.server))

    def config(self, seed: int) -> RunConfig:
        """What a run of it is made of."""
        return RunConfig(self.policy, self.predictor, seed, admission=self.admission, priors=self.priors)


Runs = dict[tuple[str, str], list[dict[str, Any]]]  # (scenario, variant) -> a summary for each seed


def run_all(
    scenarios: Iterable[Scenario], variants: Iterable[Variant], seeds: Sequence[int], tell: Tell
) -> Runs:
    """Every variant in every scenario, the same seeds for all."""
    found: Runs = {}
    chosen = list(variants)
    for scenario in scenarios:
        for variant in chosen:
            tell(f"{scenario.name}: {variant.name}")
            found[scenario.name, variant.name] = [one(scenario, variant, seed) for seed in seeds]
    return found


def one(scenario: Scenario, variant: Variant, seed: int) -> dict[str, Any]:
    """The summary of one run, without its clients."""
    return _summary(variant.on(scenario), variant.config(seed))


@lru_cache(maxsize=10_000)
def _summary(scenario: Scenario, config: RunConfig) -> dict[str, Any]:
    """Parts of a study share runs: one that was made is not made again."""
    summary = simulate_as(scenario, config).summary
    kept = {key: value for key, value in summary.items() if key != "clients"}
    gap = kept["service_difference"]["windowed"].get("mean", 0.0)
    return {**kept, SHARE: gap / kept[TPS] if kept[TPS] else 0.0}


def values(runs: Runs, scenario: str, variant: str, metric: str) -> list[float]:
    """One number for each seed."""
    found = [number(summary, metric) for summary in runs[scenario, variant]]
    return [value for value in found if value is not None]


def table(runs: Runs) -> Iterator[dict[str, Any]]:
    """Scenario, variant and the mean of every metric with its interval."""
    for scenario, variant in runs:
        means = {metric: mean(values(runs, scenario, variant, metric))._asdict() for metric in METRICS}
        yield {"scenario": scenario, "variant": variant, **means}


def compared(
    runs: Runs,
    scenario: str,
    metric: str,
    ours: str,
    theirs: str,
    points: bool = False,
    test: Test | None = None,
) -> Difference:
    """Ours against theirs by seed: a ratio, or a difference where `points` or where something is not above 0."""
    left, right = (values(runs, scenario, who, metric) for who in (ours, theirs))
    found = None if points else ratio(left, right, test)
    return found or difference(left, right, test)


def comparisons(
    runs: Runs, pairs: Iterable[tuple[str, str]], metrics: Sequence[str], scenarios: Sequence[str]
) -> list[dict[str, Any]]:
    """Every pair of variants by every metric in every scenario; Jain in points. Holm's correction over all rows.

    p is Student's: with ten seeds sign flips cannot go below 0.002, too much for a table of a hundred rows.
    """
    rows = [
        {
            "scenario": scenario,
            "ours": ours,
            "theirs": theirs,
            "metric": metric,
            **compared(runs, scenario, metric, ours, theirs, metric.startswith("jain"), student_p)._asdict(),
        }
        for scenario in scenarios
        for ours, theirs in pairs
        for metric in metrics
    ]
    corrected = holm({str(place): row["p"] for place, row in enumerate(rows)})
    return [
        {**row, "p": corrected[str(place)], "judged": judged(row, corrected[str(place)])}
        for place, row in enumerate(rows)
    ]


def judged(row: Mapping[str, Any], p: float) -> str:
    """better, worse, or same where no difference is shown."""
    nothing = 1.0 if row["ratio"] else 0.0
    if p >= 0.05 or row["low"] <= nothing <= row["high"]:
        return "same"
    return "better" if (row["value"] > nothing) == (row["metric"] in HIGHER) else "worse"


def at_load(scenario: Scenario, factor: float) -> Scenario:
    """The scenario with `factor` times as many requests a second."""
    if scenario.trace is not None:
        return replace(scenario, trace=replace(scenario.trace, speed=scenario.trace.speed * factor))
    clients = tuple(
        replace(
            client, pieces=tuple(Piece(s, first * factor, last * factor) for s, first, last in client.pieces)
        )
        for client in scenario.clients
    )
    return replace(scenario, clients=clients)
