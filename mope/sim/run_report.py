"""`mope simulate` as a page: the table, each run compared with the first, and pictures of the first seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mope.sim.log import read_log
from mope.sim.pictures import Run, pictures, probe
from mope.sim.report import Page, front
from mope.sim.run import RunConfig
from mope.sim.scenario import Scenario
from mope.sim.sheets import LEGEND, Sheet, grid, mean_cell
from mope.sim.study import GAP, JAIN, TPS, TTFT, Runs, comparisons
from mope.sim.table import SHOWN

COMPARED = (TPS, TTFT, "ttft_s.p99", "latency_s.mean", JAIN, f"{GAP}.mean")
MOST_PICTURED = 4
MOST_PROBED = 20_000  # requests; beyond, counters are not sampled, as that is a run in memory


def compare(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every policy and predictor against the first by seed, p corrected by Holm; none where there is one seed."""
    found: Runs = {}
    for run in runs:
        found.setdefault((run["scenario"], label(run)), []).append(run["summary"])
    names = list(dict.fromkeys(name for _, name in found))
    if len(names) < 2 or any(len(summaries) < 2 for summaries in found.values()):
        return []
    scenario = next(iter(found))[0]
    known = [metric for metric in COMPARED if all(metric.split(".")[0] in one[0] for one in found.values())]
    return comparisons(found, [(name, names[0]) for name in names[1:]], known, [scenario])


def label(row: Mapping[str, Any]) -> str:
    """A policy with its predictor."""
    return f"{row['policy']}, {row['predictor']}"


def write(folder: Path, scenario: Scenario, configs: Sequence[RunConfig], found: Mapping[str, Any]) -> Path:
    """report.html beside the logs; gives its path."""
    page = Page(f"{scenario.name}: {', '.join(dict.fromkeys(one.policy for one in configs))}")
    title = f"{scenario.title}; " if scenario.title else ""
    page.text(f"{title}{Path(scenario.hardware).name}, {scenario.server.loop} loop")
    sheet = _table(found["table"])
    page.table(sheet.head, sheet.rows, sheet.words)
    if found["compared"]:
        against = grid("Compared with the first", LEGEND, found["compared"])
        page.heading(against.title)
        page.text(against.text)
        page.table(against.head, against.rows, against.words)
    points = {label(row): (row[TPS]["value"], row[JAIN]["value"]) for row in found["table"]}
    page.heading("Pictures")
    page.picture(front(points, "tokens/s", "Jain's index of service"), "Fairness against throughput")
    pictures(page, _runs(folder, scenario, configs))
    page.fold("Configuration", json.dumps(asdict(scenario), indent=1, default=str))
    page.save(folder / "report.html")
    return folder / "report.html"


def _runs(folder: Path, scenario: Scenario, configs: Sequence[RunConfig]) -> dict[str, Run]:
    first = [one for one in configs if one.seed == configs[0].seed][:MOST_PICTURED]
    found: dict[str, Run] = {}
    for one in first:
        log = read_log(folder / "runs" / one.name / "log.csv")
        run = probe(scenario, one) if len(log) <= MOST_PROBED else (log, {})
        found[f"{one.policy}, {one.predictor_name}"] = run
    return found


def _table(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    head = ("policy", "predictor", "seeds", *SHOWN.values())
    cells = [
        [row["policy"], row["predictor"], str(row["seeds"])]
        + ["" if row[key] is None else mean_cell(row[key]) for key in SHOWN]
        for row in rows
    ]
    return Sheet("", "", head, cells, 2)
