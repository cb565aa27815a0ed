"""Studies as a page with plots, a Markdown file of the same tables, and their results as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mope.files import write_text
from mope.sim import ablation, paper
from mope.sim.paper import VARIANTS
from mope.sim.pictures import pictures, probe
from mope.sim.report import Page, front, lines
from mope.sim.scenario import load_scenario, scenario_names
from mope.sim.sheets import markdown, sheets
from mope.sim.study import JAIN, TPS, TTFT, Tell, table

PICTURED = ("FCFS, plain server", "VTC, plain server", "VTC", "Equinox+MoPE")
PARTS = ("claims", "loads", "ladder", "table1", "sweep")
TITLES = {
    "paper": "Equinox's claims, run again",
    "hardware": "Equinox on four machines",
    "search": "Beyond the paper's numbers",
}


def run(parts: Sequence[str], seeds: int, tell: Tell, hardware: str | None = None) -> dict[str, Any]:
    """The chosen parts of the paper's study as plain values."""
    numbers = range(seeds)
    found: dict[str, Any] = {"study": "paper", "seeds": seeds, "hardware": hardware}
    if "claims" in parts:
        runs = paper.run_claims(numbers, tell, hardware)
        found |= {"claims": paper.check(runs), "losses": paper.losses(runs), "table": list(table(runs))}
    if "loads" in parts:
        found["loads"] = paper.load_sweep(numbers, tell)
    for part, make in (("ladder", ablation.ladder), ("table1", ablation.table_1), ("sweep", ablation.sweep)):
        if part in parts:
            found[part] = make(numbers, tell)
    return found


def write(folder: Path, results: Mapping[str, Any]) -> Path:
    """report.html, tables.md, results.json and config.json in a folder; gives the path of the page."""
    config = {"study": results["study"], "seeds": results["seeds"], "scenarios": _scenarios(results)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (("results.json", results), ("config.json", config)):
        write_text(folder / name, json.dumps(value, indent=1, default=str) + "\n")
    title, said = TITLES[results["study"]], f"{results['seeds']} seeds, the same requests for every variant."
    found = list(sheets(results))
    write_text(folder / "tables.md", markdown(title, said, found))
    page = Page(title)
    page.text(said)
    for sheet in found:
        page.heading(sheet.title)
        page.text(sheet.text)
        page.table(sheet.head, sheet.rows, sheet.words)
        if sheet.title == "From which load on":
            _loads(page, results["loads"])
    pictured = [variant for variant in VARIANTS if variant.name in PICTURED]
    for name in dict.fromkeys(row["scenario"] for row in results.get("table", ()) if "claims" in results):
        rows = [row for row in results["table"] if row["scenario"] == name]
        scenario = load_scenario(name)
        page.heading(scenario.name)
        page.text(f"{scenario.title}; {Path(scenario.hardware).name}")
        points = {row["variant"]: (row[TPS]["value"], row[JAIN]["value"]) for row in rows}
        page.picture(front(points, "tokens/s", "Jain's index of service"), "Fairness against throughput")
        pictures(page, {one.name: probe(one.on(scenario), one.config(0)) for one in pictured})
    page.fold("Configuration", json.dumps(config, indent=1, default=str))
    page.save(folder / "report.html")
    return folder / "report.html"


def _scenarios(results: Mapping[str, Any]) -> dict[str, Any]:
    """Every scenario of a study, resolved; those made from others are described by the results."""
    groups = [results, *(part for part in results.values() if isinstance(part, dict))]
    names = dict.fromkeys(row["scenario"] for group in groups for row in group.get("table", ()))
    shipped = set(scenario_names())
    return {name: asdict(load_scenario(name)) for name in names if name in shipped}


def _loads(page: Page, loads: Sequence[Mapping[str, Any]]) -> None:
    for metric, label in ((TPS, "throughput"), (TTFT, "mean TTFT")):
        curves = {
            f"against {other}": (
                [row["load"] for row in loads if (row["theirs"], row["metric"]) == (other, metric)],
                [row["value"] for row in loads if (row["theirs"], row["metric"]) == (other, metric)],
            )
            for other in dict.fromkeys(row["theirs"] for row in loads)
        }
        picture = lines(curves, "load, 1.0 as in the scenario stochastic", f"{label}, Equinox / other")
        page.picture(picture, f"Ratio of {label} by load")
