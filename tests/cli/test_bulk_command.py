"""`mope predict --file --output`: streams, exit codes, and a base install without the extras."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mope.cli import build_app
from mope.cli.bulk import check_options, split_columns
from mope.errors import ConfigError

ROWS = [{"id": 5, "prompt": "Write a poem."}, {"id": 6, "prompt": ""}, {"id": 7, "question": "q"}]


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_rows_in_the_file_json_on_stdout_counts_on_stderr(chats: Path, tmp_path: Path):
    output = tmp_path / "o.jsonl"
    words = [
        "predict",
        "--file",
        str(chats),
        "-o",
        str(output),
        "--router-only",
        "--json",
        "--columns",
        "id,prompt",
    ]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["rows"], told["errors"]) == (3, {"empty prompt": 1, "no prompt": 1})
    assert "3 rows, 2 could not be predicted" in result.stderr
    assert "1 x empty prompt" in result.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(r["row"], r["id"], r["prompt"], r["error"]) for r in rows] == [
        (0, 5, "Write a poem.", None), (1, 6, "", "empty prompt"), (2, 7, None, "no prompt"),
    ]  # fmt: skip
    assert rows[0]["bucket"] in ("short", "medium", "long")


def test_the_lengths_of_the_bundle_that_ships(chats: Path, tmp_path: Path):
    words = ["predict", "-f", str(chats), "-o", str(tmp_path / "o.jsonl"), "--map", "prompt=question"]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert list(rows[2]) == [
        "row", "id", "tokens", "low", "high", "bucket", "p_short", "p_medium", "p_long", "error",
    ]  # fmt: skip
    assert [row["error"] for row in rows] == ["no prompt", "no prompt", None]
    assert rows[0]["tokens"] is None
    assert rows[2]["low"] <= rows[2]["tokens"] <= rows[2]["high"]


def mope(*words: str, forbidden: str = "") -> subprocess.CompletedProcess[str]:
    """`mope WORDS` in a process that cannot import `forbidden`."""
    code = (
        "import sys\n"
        f"class No:\n    def find_spec(self, name, *_):\n        if name in {forbidden.split()!r}: return 1/0\n"
        "import importlib.util as u\n"
        f"find = u.find_spec\nu.find_spec = lambda n, *a: None if n in {forbidden.split()!r} else find(n, *a)\n"
        "sys.meta_path.insert(0, No())\nfrom mope.cli import main\nmain(sys.argv[1:])"
    )
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)


def test_the_base_install_reads_and_writes_jsonl(chats: Path, tmp_path: Path):
    extras = "torch accelerate datasets pyarrow pandas lightning sklearn"
    words = ("predict", "--file", str(chats), "--output", str(tmp_path / "o.jsonl"), "--processes", "1")
    done = mope(*words, forbidden=extras)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 3
    done = mope("predict", "--file", str(chats), "--output", str(tmp_path / "o.parquet"), forbidden=extras)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'mope-llm[data]'" in done.stderr
    assert not list(tmp_path.glob("o.parquet*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--file", "no.jsonl", "--output", "o.jsonl"), "no file"),
        (("--file", "in.jsonl", "--output", "no/o.jsonl"), "folder that is not there"),
        (("--file", "in.jsonl", "--output", "old.jsonl"), "there already"),
        (("--file", "in.jsonl", "--output", "o.csv"), ".parquet or .jsonl"),
        (("--file", "in.jsonl", "--output", "o.jsonl", "--columns", "nobody"), "no column 'nobody'"),
        (("--file", "in.jsonl", "--resume"), "--resume without --output"),
        (("--output", "o.jsonl"), "--output without --file"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    words: tuple[str, ...],
    message: str,
    chats: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    from mope.cli import main

    monkeypatch.chdir(chats.parent)
    Path("old.jsonl").write_text("old")
    with pytest.raises(SystemExit) as end:
        main(["predict", *words])
    told = capsys.readouterr()
    assert (end.value.code, told.out) == (2, "")
    assert message in told.err
    assert told.err.strip().count("error: ") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "old.jsonl"]


def test_options_that_need_an_output():
    check_options(None, None, {"--resume": False})
    with pytest.raises(ConfigError, match="--force without --output"):
        check_options(Path("f"), None, {"--resume": False, "--force": True})
    with pytest.raises(ConfigError, match="--output without --file"):
        check_options(Path("-"), Path("o"), {})


def test_columns_in_words():
    assert [split_columns(text) for text in (None, "", "a, b,,c")] == [None, (), ("a", "b", "c")]
