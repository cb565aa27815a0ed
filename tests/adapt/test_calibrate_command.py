"""`mope calibrate` as a user types it: one document, a file that `mope predict` then takes, one message otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mope.cli import build_app
from mope.data.synthetic import synthetic
from mope.errors import MopeError
from mope.predictor.bundle import MoPE


def mope(*words: str) -> Result:
    return CliRunner().invoke(build_app(), list(words))


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("command") / "bundle"
    return Path(shutil.copytree(tiny, copy, ignore=shutil.ignore_patterns("run")))


@pytest.fixture(scope="module")
def log(folder: Path) -> Path:
    """Sixty answers of `wordy`, five times as long as the bundle says, and ten of another model."""
    requests = synthetic(60, seed=3).requests
    rows = [
        {"prompt": r.prompt, "model": "wordy", "response_tokens": round(5 * f.tokens), "prompt_id": f"p{i}"}
        for i, (r, f) in enumerate(zip(requests, MoPE.from_pretrained(folder).predict(requests), strict=True))
    ]
    rows += [{**row, "model": "other", "response_tokens": 1} for row in rows[:10]]
    path = folder.parent / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_overlay_is_written_beside_the_bundle_and_used(folder: Path, log: Path):
    before = json.loads(
        mope("predict", str(folder), "Explain the weather", "--model", "wordy", "--json").stdout
    )
    done = mope("calibrate", str(folder), str(log), "--model", "wordy", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["answers"] == told["conversations"] == 60
    assert told["after"]["mae"]["value"] < 0.5 * told["before"]["mae"]["value"]
    assert told["difference"]["high"] < 0
    path = Path(told["overlay"])
    assert path.parent == folder / "overlays"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    words = ("predict", str(folder), "Explain the weather", "--json")
    after, other, none = (
        json.loads(mope(*words, *more).stdout)[0]["tokens"]
        for more in (("--model", "wordy"), ("--model", "other"), ("--model", "wordy", "--overlay", "none"))
    )
    assert after > 3 * before[0]["tokens"]
    assert other == pytest.approx(before[0]["tokens"], rel=1e-3)
    assert none == pytest.approx(before[0]["tokens"], rel=1e-3)
    asked = mope(*words, "--overlay", str(path))
    assert json.loads(asked.stdout)[0]["tokens"] == pytest.approx(after, rel=1e-3)


def test_a_table_for_people_and_a_file_of_ones_own(folder: Path, log: Path, tmp_path: Path):
    done = mope(
        "calibrate", str(folder), str(log), "--model", "wordy", "--output", str(tmp_path / "mine.json")
    )
    assert done.exit_code == 0, done.output
    assert "with the overlay" in done.stdout
    assert json.loads((tmp_path / "mine.json").read_text())["model"] == "wordy"


def test_evaluate_takes_it_too(folder: Path, log: Path, tmp_path: Path):
    path = tmp_path / "mine.json"
    assert mope("calibrate", str(folder), str(log), "--model", "wordy", "-o", str(path)).exit_code == 0

    def mae(*more: str) -> float:
        told = json.loads(mope("evaluate", str(folder), str(log), "--part", "all", "--json", *more).stdout)
        column = next(c for c in told["columns"] if c["name"] == "MoPE (routed, hard)")
        return float(column["metrics"]["mae"]["value"])

    assert mae("--overlay", str(path)) < 0.6 * mae("--overlay", "none")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--model", "nobody"), 2, "a log without answers of 'nobody'"),
        (("--model", "other"), 2, "answers to 10 prompts of 'other'"),
        (("--model", "wordy", "--limit", "12"), 2, "answers to 12 prompts"),
    ],
)
def test_what_cannot_be_calibrated(
    words: tuple[str, ...], code: int, message: str, folder: Path, log: Path, tmp_path: Path
):
    done = mope("calibrate", str(folder), str(log), *words, "--output", str(tmp_path / "no.json"))
    assert isinstance(done.exception, MopeError)
    assert done.exception.exit_code == code
    assert message in str(done.exception)
    assert not list(tmp_path.iterdir())
