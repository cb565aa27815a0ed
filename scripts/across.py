"""Across sources: a bundle measured on data of other kinds and other served models than it was trained on.

    python scripts/across.py BUNDLE DATA... [--limit 1500] --output docs/across

Writes OUTPUT.json and OUTPUT.md. `constant` is the median of the bundle's training lengths.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mope.data.load import read_examples
from mope.evaluation.evaluate import collect, measure
from mope.machine import machine
from mope.predictor.bundle import MoPE

COLUMNS = (
    "MoPE (routed, soft)",
    "MoPE (routed, hard)",
    "proxy",
    "context GBDT",
    "constant",
    "MoPE (oracle router)",
)
HEAD = (
    "| source | rows | median length | column | MAE, tokens | pair order | coverage of the 80 % interval |\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    bundle = MoPE.from_pretrained(asked.bundle)
    reports = {}
    for path in asked.data:
        rows = read_examples([str(path)], limit=asked.limit)
        report = measure(collect(bundle, rows, "all"), None, 0).to_dict()
        reports[path.stem] = {key: report[key] for key in ("data", "columns", "comparisons", "notes")}
        print(path.stem, flush=True)
    plain = {"command": f"limit {asked.limit}", **machine(), "sources": reports}
    asked.output.with_suffix(".json").write_text(json.dumps(plain, indent=1, default=str) + "\n")
    lines = [HEAD, "|---|---|---|---|---|---|---|\n"]
    for name, report in reports.items():
        lines += _rows(name, report)
    asked.output.with_suffix(".md").write_text("".join(lines))


def _rows(name: str, report: dict[str, Any]) -> list[str]:
    found = {column["name"]: column["metrics"] for column in report["columns"]}
    data, lines = report["data"], []
    for column in COLUMNS:
        if column in found:
            cells = [_cell(found[column].get(key), form) for key, form in _SHOWN]
            first = (
                f"| {name} | {data['examples']:,} | {data['median_tokens']:.0f} " if not lines else "| | | "
            )
            lines.append(f"{first}| {column} | {' | '.join(cells)} |\n")
    return lines


_SHOWN = (("mae", ".1f"), ("order_accuracy", ".3f"), ("coverage", ".3f"))


def _cell(value: dict[str, float] | None, form: str) -> str:
    if not value or value["value"] is None:
        return ""
    ends = f" [{value['low']:{form}}, {value['high']:{form}}]" if value["low"] is not None else ""
    return f"{value['value']:{form}}{ends}"


if __name__ == "__main__":
    main()
