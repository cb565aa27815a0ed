"""Our runs of VTC's suites beside the logged ones of a real A10G: the check of the simulator against a machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np

from mope.sim import metrics
from mope.sim.metrics import Service
from mope.sim.run import Result, simulate
from mope.sim.scenario import Scenario, load_scenario

TABLE_S = 600.0  # the duration that VTC's table assumes whatever the suite


@dataclass(frozen=True)
class Logged:
    """A real run. `ttft_s` by client, or under `all`; `difference` is VTC's windowed one, see `metrics`."""

    suite: str
    policy: str
    tokens_per_s: float
    ttft_s: Mapping[str, float]
    difference: Mapping[str, float]
    predictor: str = "none"
    duration_s: float | None = None
    ttft_p90_s: float | None = None

    @property
    def scenario(self) -> Scenario:
        """The suite, as long as it was run."""
        found = load_scenario(f"vtc/{self.suite}")
        return found if self.duration_s is None else replace(found, duration_s=self.duration_s)


def logged_runs() -> list[Logged]:
    """The real runs there are numbers of."""
    text = files("mope.sim").joinpath("scenarios", "vtc-logged.json").read_text("utf-8")
    return [Logged(**run) for run in json.loads(text)["runs"]]


def compare(run: Logged, seed: int = 0) -> dict[str, Any]:
    """A real run and ours: throughput, mean TTFT over all and by client, service difference; seed 0 is its draw."""
    ours = simulate(run.scenario, run.policy, run.predictor, seed)
    ttft, real_ttft = _ttft(run, ours)
    service = Service.of(ours.log)
    rates = service.rates(metrics.difference_points(TABLE_S))
    clients = {
        name: {"ours": ours.summary["clients"][name]["ttft_s"]["mean"], "real": value}
        for name, value in run.ttft_s.items()
        if name != "all"
    }
    p90 = ours.summary["ttft_s"]["p90"]
    return {
        "suite": run.suite,
        "policy": run.policy,
        "predictor": run.predictor,
        "tokens_per_s": _pair(ours.summary["tokens_per_s"], run.tokens_per_s),
        "ttft_s": _pair(ttft, real_ttft),
        "ttft_p90_s": {"ours": p90} if run.ttft_p90_s is None else _pair(p90, run.ttft_p90_s),
        "clients": clients,
        "difference": {
            key: {"ours": value, "real": run.difference[key]}
            for key, value in metrics.summary_of(metrics.windowed_difference(*rates)).items()
        },
    }


def _ttft(run: Logged, ours: Result) -> tuple[float, float]:
    """Mean TTFT over all requests, ours and the real one; the real clients' means weighted by our requests."""
    mean = float(ours.summary["ttft_s"]["mean"])
    if "all" in run.ttft_s:
        return mean, run.ttft_s["all"]
    counts = [ours.summary["clients"][name]["requests"] for name in run.ttft_s]
    return mean, float(np.average(list(run.ttft_s.values()), weights=counts))


def _pair(ours: float, real: float) -> dict[str, float]:
    return {"ours": ours, "real": real, "off": ours / real - 1}


def orders(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each suite with several policies: fairest first by mean service difference, ours and real."""
    suites = dict.fromkeys(row["suite"] for row in rows)
    found = []
    for suite in suites:
        here = [row for row in rows if row["suite"] == suite]
        if len(here) > 1:
            ours, real = (_order(here, key) for key in ("ours", "real"))
            found.append({"suite": suite, "ours": ours, "real": real, "same": ours == real})
    return found


def _order(rows: list[dict[str, Any]], key: str) -> list[str]:
    fairness: Callable[[dict[str, Any]], float] = lambda row: row["difference"]["mean"][key]  # noqa: E731
    return [row["policy"] for row in sorted(rows, key=fairness)]
