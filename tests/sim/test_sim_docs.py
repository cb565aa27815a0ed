"""The tables in docs/study are those of the JSON beside them."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "docs" / "study").glob("*.json"))


def script() -> ModuleType:
    spec = spec_from_file_location("study_docs", ROOT / "scripts" / "study_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_are_those_of_their_results(path: Path) -> None:
    found = json.loads(path.read_text())
    assert script().document(found) == path.with_suffix(".md").read_text()
    assert found["study"] == path.stem


def test_results_are_rounded_and_sorted_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script()
    monkeypatch.setattr(module, "HOME", tmp_path / "docs")
    results = {
        "study": "hardware",
        "seeds": 2,
        "capacity": [],
        "compared": [],
        "table": [],
        "x": [{"y": 1 / 3}],
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    module.main(tmp_path)
    assert json.loads((tmp_path / "docs" / "hardware.json").read_text())["x"] == [{"y": 0.333333}]
    assert "mope study hardware --seeds 2" in (tmp_path / "docs" / "hardware.md").read_text()
