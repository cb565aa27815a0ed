"""Results of studies as tables of text, the same for a terminal, a page and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mope.sim.study import GAP, JAIN, METRICS, OWED, PRICED, SHARE, TPS, TTFT

Row = Mapping[str, Any]
LEGEND = (
    "Ratios ours / theirs (Jain: points), paired by seed, with 95 % intervals; better or worse where p < 0.05 by"
    " Student's t after Holm's correction over the table."
)
SHORT = {
    TPS: "tokens/s", TTFT: "mean TTFT", "ttft_s.p99": "p99 TTFT", JAIN: "Jain", "tpot_s.p99": "p99 TPOT",
    "latency_s.mean": "mean latency", SHARE: "gap / tokens/s", "preempted": "preemptions",
    f"{GAP}.max": "gap max", f"{GAP}.mean": "gap mean", f"{GAP}.var": "gap variance",
    f"{PRICED}.mean": "gap mean, x 4",
    f"{OWED}.max": "accumulated gap max",
}  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """A table with a heading and a few words. The first `words` columns are words, the others numbers."""

    title: str
    text: str
    head: tuple[str, ...]
    rows: list[list[str]] = field(default_factory=list)
    words: int = 1
    many: bool = False  # too wide for a terminal


def sheets(results: Mapping[str, Any]) -> Iterator[Sheet]:
    """The tables of a study's results, whichever parts there are."""
    name = results["study"]
    if name == "paper":
        yield from _paper(results)
    elif name == "hardware":
        yield _capacity(results["capacity"])
        yield grid("Equinox against the baselines by machine", LEGEND, results["compared"])
        yield means("Every run by machine", results["table"])
    elif name == "search":
        yield _tried(results)
        yield grid(
            f"On the test scenarios: {'it wins' if results['wins'] else 'no win'}",
            LEGEND,
            results["compared"],
        )
        yield means("Every test run", results["table"])
        if "memory" in results:
            yield from _memory(results["memory"])


def _paper(results: Mapping[str, Any]) -> Iterator[Sheet]:
    if "claims" in results:
        yield claims(results["claims"])
        yield grid("Where Equinox gains and where it loses", LEGEND, results["losses"])
    if "loads" in results:
        yield grid("From which load on", f"{LEGEND} Load 1.0 is the scenario stochastic's.", results["loads"])
    for part, title, text in (
        ("ladder", "Where it comes from: one change at a time, each against the rung before", LEGEND),
        ("table1", "Table 1: the service gap of every combination against VTC and its kin", LEGEND),
        ("sweep", "alpha from 0.1 to 0.9, beta = 1 - alpha, against alpha 0.7", LEGEND),
    ):
        if part in results:
            yield means(f"{title.partition(':')[0]}: means", results[part]["table"])
            yield grid(title, text, results[part]["compared"])
    if "table" in results:
        yield means("Every variant in every scenario", results["table"])


def claims(rows: Sequence[Row]) -> Sheet:
    """What the paper says beside what we find."""
    head = ("claim", "scenario", "ours", "against", "paper", "measured", "p", "verdict")
    cells = [
        [
            row["claim"], row["scenario"], row["ours"], row["theirs"], f"{row['paper']:.2f}", ratio_cell(row),
            f"{row['p']:.3f}", row["verdict"],
        ]
        for row in rows
    ]  # fmt: skip
    text = (
        "Ratios (or points of Jain) with 95 % intervals, paired by seed; p from exact sign flips, corrected by Holm"
        " over the claims. A plain server admits by the prompt alone and reads prompts whole; the other keeps room"
        " for the predicted length and reads in chunks beside decodes."
    )
    return Sheet("What the paper says, and what we find", text, head, cells, 4)


def grid(title: str, text: str, rows: Iterable[Row]) -> Sheet:
    """Comparisons: a line for each pair in each scenario, a column for each metric."""
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    metrics: dict[str, str] = {}
    for row in rows:
        metrics.setdefault(row["metric"], SHORT.get(row["metric"]) or str(row["metric"]))
        key = row["scenario"], row["ours"], row["theirs"]
        lines.setdefault(key, {})[row["metric"]] = f"{ratio_cell(row)} {_mark(row)}".rstrip()
    cells = [[*key, *(found.get(metric, "") for metric in metrics)] for key, found in lines.items()]
    return Sheet(title, text, ("scenario", "ours", "against", *metrics.values()), cells, 3)


def means(title: str, rows: Sequence[Row]) -> Sheet:
    """Means with half the width of their intervals: a line for each variant in each scenario."""
    cells = [
        [row["scenario"], row["variant"], *(mean_cell(row[metric]) for metric in METRICS)] for row in rows
    ]
    return Sheet(
        title,
        "Mean \u00b1 half of the 95 % interval over seeds.",
        ("scenario", "variant", *METRICS.values()),
        cells,
        2,
        True,
    )


def _capacity(rows: Sequence[Row]) -> Sheet:
    cells = [
        [row["scenario"], row["hardware"], f"{row['tokens_per_s']:,.0f}", f"{row['load']:.3f}"]
        for row in rows
    ]
    text = (
        "Tokens/s with all requests waiting (plain FCFS, own server), and the factor of the scenario's rates."
    )
    return Sheet(
        "What each machine can do", text, ("scenario", "hardware", "tokens/s", "rates times"), cells, 2
    )


def _tried(results: Mapping[str, Any]) -> Sheet:
    names = list(results["numbers"]["paper"])
    head = (*names, "seeds", "gap", "least tokens/s", "most p99 TTFT", "")
    paper = results["numbers"]["paper"]
    cells = []
    for place, row in enumerate(results["tried"]):
        if place < 12 or row["numbers"] == paper:
            note = "the paper's" if row["numbers"] == paper else "" if row["allowed"] else "not allowed"
            said = [f"{row[key]:.3f}" for key in ("gap", "throughput", "ttft_p99")]
            cells.append([*(str(row["numbers"][name]) for name in names), str(row["seeds"]), *said, note])
    text = (
        f"{results['tries']} draws, the best of them and the paper's; ratios to the paper's numbers over"
        f" {', '.join(results['train'])}."
    )
    return Sheet("Tuned on the training scenarios", text, head, cells, 0)


def _memory(found: Mapping[str, Any]) -> Iterator[Sheet]:
    head = ("quantile", "tokens/s", "most p99 TTFT", "most gap / tokens/s", "")
    cells = [
        [
            str(row["quantile"]),
            *(f"{row[key]:.3f}" for key in ("throughput", "ttft_p99", "gap_share")),
            "" if row["allowed"] else "not allowed",
        ]
        for row in found["tried"]
    ]
    yield Sheet(
        "Memory kept for a length: tuned", "Ratios to quantile 0.9 on the training scenarios.", head, cells, 0
    )
    won = "it wins" if found["wins"] else "no win"
    yield grid(f"Memory kept for a length: tested, {won}", LEGEND, found["compared"])


def ratio_cell(row: Row) -> str:
    """A comparison with its interval."""
    sign = "" if row["ratio"] else "+"
    return f"{row['value']:{sign}.3f} [{row['low']:{sign}.3f}, {row['high']:{sign}.3f}]"


def _mark(row: Row) -> str:
    """better or worse; nothing where the cell shows no difference."""
    nothing = 1.0 if row["ratio"] else 0.0
    return "" if row["judged"] == "same" or round(row["value"], 3) == nothing else str(row["judged"])


def mean_cell(value: Mapping[str, float]) -> str:
    """A mean and half of its interval."""
    digits = 0 if abs(value["value"]) >= 1000 else 1 if abs(value["value"]) >= 100 else 3
    reach = (value["high"] - value["low"]) / 2
    return f"{value['value']:,.{digits}f} \u00b1 {reach:,.{digits}f}"


def markdown(title: str, text: str, found: Iterable[Sheet]) -> str:
    """A document of tables."""
    parts = [f"# {title}", text]
    for sheet in found:
        rule = ["---"] * sheet.words + ["---:"] * (len(sheet.head) - sheet.words)
        lines = [sheet.head, rule, *sheet.rows]
        parts += [f"## {sheet.title}", sheet.text, "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"
