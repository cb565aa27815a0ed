from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from mope.cli import main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(argv))
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = random.Random(0)
    rows = [
        {"prompt": f"Question [b]{n % 90}[/b]", "model": rng.choice("ab"), "length": rng.randrange(10, 400),
         "prompt_id": f"g{n}", "cap": 300}
        for n in range(120)
    ]  # fmt: skip
    rows.append({"prompt": "", "length": 3})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_is_one_document(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", str(data), "--map", "length=length", "--no-curve", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["all"]["answers"] == 120
    assert {group["model"] for group in found["groups"]} == {"a", "b"}
    assert found["all"]["limit_known"] == 1.0
    assert 0.1 < found["all"]["capped"] < 0.4
    assert found["refused"] == {"empty prompt": 1}
    assert sum(found["parts"].values()) == 120
    assert found["exact"]["prompts"] == 90
    assert found["curve"] == {"none_because": "not asked for"}
    assert found["bounds"]["percentiles"] == [33.0, 66.0, 99.0]


def test_tables_go_to_stdout_and_the_refused_rows_to_stderr(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "inspect", str(data), "--map", "length=length", "--no-curve")
    assert code == 0
    assert "lengths by source" in out
    assert "lengths by model" in out
    assert "reached their limit" in out
    assert "1 x refused: empty prompt" in err
    assert "refused" not in out


def test_a_picture_is_drawn_where_asked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "lengths.png"
    code, *_ = run(capsys, "inspect", str(data), "--map", "length=length", "--no-curve", "--plot", str(plot))
    assert code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob(".*")) == []


def test_wrong_input_is_exit_2(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "inspect", str(data), "--no-curve", "--plot", "x.txt")[0] == 2
    assert run(capsys, "inspect", str(tmp_path / "none.jsonl"), "--no-curve")[0] == 2
    (tmp_path / "empty.jsonl").write_text('{"prompt": "", "length": 1}\n')
    code, out, err = run(
        capsys, "inspect", str(tmp_path / "empty.jsonl"), "--map", "length=length", "--no-curve"
    )
    assert (code, out) == (2, "")
    assert "no usable row" in err
    assert "1 x refused: empty prompt" in err
