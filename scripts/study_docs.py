"""docs/study/NAME.json and NAME.md from what a study wrote, or the Markdown again from the JSON.

mope study paper --output OUT && python scripts/study_docs.py OUT
python scripts/study_docs.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mope.sim.sheets import Sheet, markdown, sheets

HOME = Path(__file__).parents[1] / "docs" / "study"
DIGITS = 6
TITLES = {
    "paper": ("Equinox's claims, run again", "mope study paper --seeds {seeds} --output OUT"),
    "hardware": ("Equinox on four machines", "mope study hardware --seeds {seeds} --output OUT"),
    "search": (
        "Beyond the paper's numbers",
        "mope study search --seeds {seeds} --tries {tries} --output OUT",
    ),
    "vidur": (
        "One workload in Vidur and here",
        "python scripts/against_vidur.py PROFILES OUT.json 0.2 0.4 0.8 0.8:4096",
    ),
}


def main(given: Path | None) -> None:
    """Take the results in, where some are given, and write all Markdown."""
    if given is not None:
        path = given / "results.json" if given.is_dir() else given
        found = rounded(json.loads(path.read_text(encoding="utf-8")))
        name = found["study"]
        HOME.mkdir(exist_ok=True)
        (HOME / f"{name}.json").write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    for path in sorted(HOME.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        path.with_suffix(".md").write_text(document(found), encoding="utf-8")


def document(found: Mapping[str, Any]) -> str:
    """The Markdown of some results."""
    title, command = TITLES[found["study"]]
    text = f"Made by `{command.format_map(found)}` and `scripts/study_docs.py` (mope 0.1.0, Python 3.11, NumPy 2.4)."
    tables = [_vidur(found)] if found["study"] == "vidur" else list(sheets(found))
    return markdown(title, text, tables)


def rounded(value: Any) -> Any:
    """Numbers with as many digits as anybody reads."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def _vidur(found: Mapping[str, Any]) -> Sheet:
    head = (
        "requests come",
        "simulator",
        "TTFT mean, s",
        "p50",
        "p99",
        "latency mean, s",
        "p50",
        "p99",
        "CPU, s",
        "x real",
    )
    rows = [
        _row(f"{row['speed']} x, {row['blocks']:,} blocks", name, row[name])
        for row in found["rows"]
        for name in ("vidur", "vidur, native", "mope")
    ]
    trained_s = found["rows"][0]["vidur"].get("training_s", 0.0)
    text = (
        f"Vidur {found['vidur']} and mope.sim: {found['model']} at tensor parallelism 2, the arena trace at so many"
        " times its speed, 1,500 requests. CPU seconds of the run alone; Vidur trains its random forests before, once"
        f" for a model: {trained_s:.1f} CPU s with the smallest grid."
    )
    return Sheet("Side by side", text, head, rows, 2)


def _row(speed: str, name: str, run: Mapping[str, Any]) -> list[str]:
    if "failed" in run:
        return [speed, name, f"stops: {run['failed']}", *[""] * 7]
    times = [f"{run[key][part]:.3f}" for key in ("ttft_s", "latency_s") for part in ("mean", "p50", "p99")]
    return [speed, name, *times, f"{run['run_s']:.2f}", f"{run['times_real']:,.0f}"]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
