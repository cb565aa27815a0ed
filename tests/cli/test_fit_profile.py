from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mope.cli import build_app
from mope.errors import DataError
from mope.mapper.profile import Profile

TABLES = Path(__file__).parents[1] / "mapper" / "tables"


def run(*words: str) -> str:
    arguments = ["fit-profile", *words]
    return CliRunner().invoke(build_app(), arguments, catch_exceptions=False, standalone_mode=False).stdout


def test_tables_become_a_profile_that_is_a_name_for_hardware(tmp_path: Path) -> None:
    target, picture = tmp_path / "mine.json", tmp_path / "mine.png"
    tables = [str(TABLES / name) for name in ("vidur_attention.csv", "vidur_network.csv")]
    made = ("--model", "llama-2-70b", "--gpu", "a100-80g", "--tp", "2")
    out = run(*tables, *made, "--output", str(target), "--plot", str(picture), "--json")
    told = json.loads(out)
    assert told["path"] == str(target)
    assert set(told["error"]) == {"attention", "reading", "link"}
    profile = Profile.load(target)
    assert profile.tp == 2
    assert profile.origin["linear"].startswith("as in llama-2-70b@2x")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.json", "mine.png"]


def test_a_log_of_steps(tmp_path: Path) -> None:
    log = tmp_path / "steps.csv"
    rows = [
        f"{b},{b * c},{0.01 + 0.001 * b + 1e-6 * b * c}" for b in (1, 2, 4, 8, 16) for c in (100, 500, 1500)
    ]
    log.write_text("\n".join(["batch,context,seconds", *rows]) + "\n")
    target = tmp_path / "p.json"
    out = run(str(log), "--model", "llama-3.1-8b", "--gpu", "l40s", "--output", str(target))
    assert "random fifths" in out
    law = Profile.load(target).law
    assert law.decode(4.0, 100.0).at(400.0) == pytest.approx(0.01 + 0.004 + 0.0004, rel=0.02)


def test_nothing_is_written_where_the_table_is_bad(tmp_path: Path) -> None:
    log = tmp_path / "steps.csv"
    log.write_text("batch,context,seconds\n1,10,nan\n")
    with pytest.raises(DataError, match="row 1, column seconds"):
        run(str(log), "--model", "llama-3.1-8b", "--gpu", "l40s", "--output", str(tmp_path / "p.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["steps.csv"]
