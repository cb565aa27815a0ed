"""The paper's study as a page and as a table for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mope.files import write_text
from mope.sim import paper
from mope.sim.log import Log, Requests
from mope.sim.paper import METRICS, VARIANTS, Variant
from mope.sim.report import Curves, Page, front, lines, service_curves, ttft_cdf
from mope.sim.run import RunConfig, build
from mope.sim.scenario import Scenario, load_scenario

PICTURED = ("FCFS, plain server", "VTC, plain server", "VTC", "Equinox+MoPE")
SAMPLES = 100


def write(folder: Path, results: Mapping[str, Any], seeds: int) -> Path:
    """report.html, results.json and config.json in a folder; gives the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    scenarios = list(dict.fromkeys(row["scenario"] for row in results["table"]))
    config = {name: asdict(load_scenario(f"paper/{name}")) for name in scenarios}
    for name, value in (("results.json", results), ("config.json", {"seeds": seeds, "scenarios": config})):
        write_text(folder / name, json.dumps(value, indent=1, default=str) + "\n")
    page = Page("Equinox's claims, run again")
    _claims(page, results["claims"], seeds)
    _loads(page, results["loads"])
    for name in scenarios:
        rows = [row for row in results["table"] if row["scenario"] == name]
        _scenario(page, load_scenario(f"paper/{name}"), rows)
    page.fold("Configuration", json.dumps(config, indent=1, default=str))
    page.save(folder / "report.html")
    return folder / "report.html"


def _claims(page: Page, claims: Sequence[Mapping[str, Any]], seeds: int) -> None:
    page.heading("What the paper says, and what we find")
    page.text(
        f"{seeds} seeds, the same requests for every variant; 95 % intervals of paired ratios (or differences); "
        "p from exact sign flips, corrected by Holm over the claims. A plain server admits by the prompt alone and "
        "reads prompts whole; the other keeps room for the predicted length and reads in chunks beside decodes."
    )
    head = ("claim", "scenario", "ours", "against", "paper", "ours", "95 % interval", "p", "verdict")
    page.table(head, [list(claim_cells(claim)) for claim in claims])


def claim_cells(claim: Mapping[str, Any]) -> Iterator[str]:
    """A claim as cells: words first, then the paper's number, ours, interval, p, verdict."""
    yield from (claim["claim"], claim["scenario"], claim["ours"], claim["theirs"])
    yield f"{claim['paper']:.2f}"
    yield f"{claim['value']:.3f}"
    yield f"{claim['low']:.3f} to {claim['high']:.3f}"
    yield f"{claim['p']:.3f}"
    yield claim["verdict"]


def _loads(page: Page, loads: Sequence[Mapping[str, Any]]) -> None:
    if not loads:
        return
    page.heading("From which load on")
    for metric, label in (("tokens_per_s", "throughput"), ("ttft_s.mean", "mean TTFT")):
        curves = {
            f"against {other}": (
                [row["load"] for row in loads if (row["against"], row["metric"]) == (other, metric)],
                [row["value"] for row in loads if (row["against"], row["metric"]) == (other, metric)],
            )
            for other in dict.fromkeys(row["against"] for row in loads)
        }
        picture = lines(curves, "load, 1.0 as in the scenario stochastic", f"{label}, Equinox / other")
        page.picture(picture, f"Ratio of {label} by load")


def _scenario(page: Page, scenario: Scenario, rows: Sequence[Mapping[str, Any]]) -> None:
    page.heading(scenario.name)
    page.text(f"{scenario.title}; {Path(scenario.hardware).name}")
    cells = [[row["variant"], *(_cell(row[metric]) for metric in METRICS)] for row in rows]
    page.table(["variant", *METRICS.values()], cells)
    points = {row["variant"]: (row["tokens_per_s"]["value"], row["jain_served"]["value"]) for row in rows}
    page.picture(front(points, "tokens/s", "Jain's index of service"), "Fairness against throughput")
    pictured = [variant for variant in VARIANTS if variant.name in PICTURED]
    logs = {variant.name: probe(scenario, variant) for variant in pictured}
    cdfs = {name: ttft_cdf(log) for name, (log, _) in logs.items()}
    page.picture(lines(cdfs, "TTFT, s", "share of requests", log_x=True), "Time to first token, seed 0")
    for name, (log, counters) in logs.items():
        end = scenario.duration_s if scenario.trace is None else float(log.arrival_s.max())
        drawn = lines(service_curves(log, end), "s", "weighted tokens", name)
        page.picture(drawn, f"Service received over time: {name}, seed 0")
        if counters:
            page.picture(lines(counters, "s", "user counter", name), f"Counters over time: {name}, seed 0")


def probe(scenario: Scenario, variant: Variant, seed: int = 0) -> tuple[Requests, Curves]:
    """One run with the user counters of its clients sampled over time."""
    server = replace(scenario.server, **variant.server)
    log = Log()
    sim = build(replace(scenario, server=server), RunConfig(variant.policy, variant.predictor, seed), log)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    end = scenario.duration_s if scenario.trace is None else 600.0 / scenario.trace.speed
    due = 0.0
    while sim.run(20):
        if sim.events.now >= due and due <= end:
            due += end / SAMPLES
            for one in sim.scheduler.metrics().clients:
                xs, ys = curves.setdefault(one.client, ([], []))
                xs.append(sim.events.now)
                ys.append(one.user_counter)
    moved = {name: curve for name, curve in sorted(curves.items())[:8] if any(curve[1])}
    return log.requests(), moved


def _cell(value: Mapping[str, float]) -> str:
    digits = 0 if abs(value["value"]) >= 1000 else 1 if abs(value["value"]) >= 100 else 3
    reach = (value["high"] - value["low"]) / 2
    return f"{value['value']:,.{digits}f} \u00b1 {reach:,.{digits}f}"


def run(seeds: int, tell: paper.Tell, hardware: str | None = None, loads: bool = True) -> dict[str, Any]:
    """The whole study as plain values."""
    runs = paper.run_all(paper.SCENARIOS, VARIANTS, seeds, tell, hardware)
    return {
        "study": "paper",
        "seeds": seeds,
        "hardware": hardware,
        "claims": paper.check(runs),
        "loads": paper.load_sweep(seeds, tell) if loads else [],
        "table": list(paper.table(runs)),
    }
