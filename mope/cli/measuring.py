"""Puts what an evaluation measured into the bundle's facts.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mope.data.records import LengthData
    from mope.evaluation.report import Report


def measure_into_facts(folder: Path, data: LengthData) -> Report:
    """The report on the test part, also written to `facts.json`."""
    from mope.evaluation.evaluate import evaluate
    from mope.predictor.bundle import MoPE

    bundle = MoPE.from_pretrained(folder)
    report = evaluate(bundle, data)
    write_facts(folder, report, bundle.backend.name)
    return report


def write_facts(folder: Path, report: Report, backend: str) -> None:
    """Put a report into the bundle's `facts.json`, with the backend that answered; other slices are kept."""
    from mope.files import write_text
    from mope.predictor import layout

    facts = json.loads(layout.read_text(folder, layout.FACTS))
    found = report.to_dict()
    facts |= {"evaluation": found, "evaluated_backend": backend}
    if report.by:
        facts["slices"] = {**facts.get("slices", {}), report.by: found["slices"]}
    write_text(folder / layout.FACTS, json.dumps(facts, indent=1) + "\n")
