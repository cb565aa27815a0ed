from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mope import cli
from mope.data.split import part_of
from mope.predictor.bundle import MoPE

SOFT = "MoPE (routed, soft)"


@pytest.fixture
def chats(worlds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """200 rows whose prompt is a word of its own; the bundle says 50 to each."""
    prompts = [f"{i}" for i in range(200)]
    lines = [{"prompt": p, "response_tokens": 40 + i % 20} for i, p in enumerate(prompts)]
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    bundle, _ = worlds.exact({SOFT: [50] * 200, "constant": [45] * 200}, [[1]] * 200)
    monkeypatch.setattr(MoPE, "from_pretrained", lambda source, **named: bundle)
    return path


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["evaluate", *map(str, argv)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_json_is_the_only_thing_on_stdout(chats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("my-bundle", chats, "--json", "--part", "all", "--seed", 3) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["bundle"], found["paths"]) == ("my-bundle", [str(chats)])
    assert (found["data"]["examples"], found["seed"]) == (200, 3)
    assert found["columns"][0]["metrics"]["mae"]["value"] == 5
    assert "200 examples" in captured.err


def test_people_get_tables(chats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("my-bundle", chats, "--by", "source") == 0
    out = capsys.readouterr().out
    assert "(part: test)" in out
    assert "MAE by source" in out
    assert f"{SOFT} against the others" in out


def test_output_holds_report_and_pictures(
    chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "deep" / "report"
    assert run("my-bundle", chats, "--part", "all", "--output", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "report.json").read_text())
    pictures = {"predicted.png", "deciles.png", "reliability.png", "confusion.png"}
    assert {path.name for path in folder.iterdir()} == pictures | {"report.json", "report.md"}
    assert all(f"]({name})" in (folder / "report.md").read_text() for name in pictures)


def test_without_matplotlib_the_numbers_are_still_written(
    chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mope.extras.find_spec", lambda name: None)
    assert run("my-bundle", chats, "--part", "all", "--output", tmp_path / "report") == 0
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.json", "report.md"}
    assert "mope-llm[plots]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--by", "colour"], ["--part", "exam"], ["--map", "prompt"], ["--limit", "0"], ["--seed", "-1"]]
)
def test_wrong_options_exit_2_with_nothing_on_stdout(
    chats: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("my-bundle", chats, "--json", *wrong) == 2
    assert not capsys.readouterr().out


def test_a_file_as_output_is_refused(chats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("my-bundle", chats, "--output", chats) == 2
    assert "a folder" in capsys.readouterr().err


def test_a_missing_bundle_and_missing_data_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere", tmp_path / "none.jsonl") == 2
    assert "nowhere" in capsys.readouterr().err


def test_limit_and_map(chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("\n".join(json.dumps({"q": str(i), "n": 50}) for i in range(200)))
    assert run("b", path, "--map", "prompt=q,length=n", "--limit", 7, "--part", "all", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"]["examples"] == 7
    assert found["columns"][0]["metrics"]["mae"]["value"] == 0


def test_the_part_is_that_of_the_groups_in_the_file(chats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mope.data.load import read_examples

    assert run("my-bundle", chats, "--json") == 0
    expected = sum(part_of(group) == "test" for group in read_examples([chats]).groups)
    assert json.loads(capsys.readouterr().out)["data"]["examples"] == expected > 0
