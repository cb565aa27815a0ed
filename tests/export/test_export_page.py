"""docs/export.md: its tables are those that the scripts measured."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def script() -> Any:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "export_table.py")))


def test_the_table_is_the_measured_one(script: Any):
    document = json.loads((DOCS / "export.json").read_text())
    page = (DOCS / "export.md").read_text()
    assert script.spliced(page, script.markdown(document)) == page
    assert (DOCS / "routing_choice.md").read_text() in page


def test_a_table_is_spliced_between_its_marks(script: Any):
    page = f"before\n{script.MARKS[0]}\nold\n{script.MARKS[1]}\nafter"
    assert script.spliced(page, "new") == f"before\n{script.MARKS[0]}\nnew\n{script.MARKS[1]}\nafter"
