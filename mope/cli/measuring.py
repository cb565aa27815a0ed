"""Evaluates a fresh bundle and puts the numbers into its facts.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mope.data.records import LengthData
    from mope.report import Report


def measure_into_facts(folder: Path, data: LengthData) -> Report:
    """The report on the test part, also written to `facts.json` under "evaluation"."""
    from mope.evaluate import evaluate
    from mope.predictor import layout
    from mope.predictor.bundle import MoPE

    report = evaluate(MoPE.from_pretrained(folder), data)
    facts = json.loads(layout.read_text(folder, layout.FACTS))
    layout.write_text(
        folder / layout.FACTS, json.dumps(facts | {"evaluation": report.to_dict()}, indent=2) + "\n"
    )
    return report
