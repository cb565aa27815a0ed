"""Commands as a user types them: results on stdout, one message and exit code 2 for bad input, nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def mope(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mope", *words], input=stdin, capture_output=True, text=True)


def test_predict_for_people(exported: tuple[Path, Path]):
    done = mope("predict", str(exported[1]), "Explain the weather")
    assert done.returncode == 0, done.stderr
    assert "80 % interval" in done.stdout
    assert "Explain the weather" in done.stdout


def test_predict_for_machines(exported: tuple[Path, Path]):
    done = mope("predict", str(exported[1]), "--file", "-", "--json", stdin="one\n\ntwo\n")
    rows = json.loads(done.stdout)
    assert [row["prompt"] for row in rows] == ["one", "two"]
    assert rows[0]["low"] <= rows[0]["tokens"] <= rows[0]["high"]


@pytest.mark.parametrize(
    "prompt",
    ["word " * 200, "What does [/INST] do?", "\x1b[31mred", "请用中文写诗。", "- a list", "a\ud800b"],
)
def test_any_prompt_is_answered(prompt: str, exported: tuple[Path, Path]):
    """By the bundle that ships, too, where the prompt stands alone."""
    words = [str(exported[1])] if prompt.startswith("-") else []
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    line = [sys.executable, "-m", "mope", "predict", *words, "--", prompt.encode("utf-8", "surrogatepass")]
    done = subprocess.run(line, capture_output=True, text=True, env=strict)
    assert done.returncode == 0, done.stderr
    assert "80 % interval" in done.stdout
    assert "\x1b" not in done.stdout


def test_predict_from_rows(exported: tuple[Path, Path], tmp_path: Path):
    file = tmp_path / "prompts.jsonl"
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "more"},
    ]
    file.write_text(json.dumps({"prompt": "one"}) + "\n" + json.dumps({"messages": chat}) + "\n")
    done = mope("predict", str(exported[1]), "--file", str(file), "--json")
    assert [row["prompt"] for row in json.loads(done.stdout)] == ["one", "more"], done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "BUNDLE", ""], "empty prompt"),
        (["predict", "no-such-folder", "hello"], "no-such-folder"),
        (["predict", "BUNDLE", "hello", "--backend", "tpu"], "backend"),
        (["predict", "word " * 100, "hello"], "word word"),
        (["predict", "BUNDLE", "hello", "--file", "BAD"], "a prompt and --file"),
        (["predict", "SPOILT", "hello"], "cut short"),
        (["predict", "--file", "BINARY"], "not UTF-8"),
        (["predict", "BUNDLE"], "without a prompt"),
        (["predict", "BUNDLE", "--file", "none.txt"], "none.txt"),
        (["predict", "BUNDLE", "--file", "BAD"], "not JSON"),
        (["evaluate", "BUNDLE", "none.jsonl"], "none.jsonl"),
        (["train", "none.jsonl", "--output", "OUT"], "none.jsonl"),
        (["train", "DATA", "--output", "OUT", "--preset", "huge"], "preset"),
        (["train", "DATA", "--output", "OUT", "--preset", "tiny", "--set", "sead=1"], "sead"),
        (["train", "DATA", "--output", "OUT", "--preset", "tiny", "--map", "prompt=question"], "question"),
        (["train", "DATA", "--output", "BAD", "--preset", "tiny"], "which is a file"),
        (["train", "EMPTY", "--output", "OUT", "--preset", "tiny"], "holds no rows"),
        (["export", "BUNDLE", "--int8"], "safetensors"),
        (["export", "BUNDLE", "--compact", "OUT"], "--int8"),
        (["export", "BUNDLE", "--int8", "--compact", "BAD"], "which is a file"),
        (["export", "OUT"], "check the path"),
    ],
)
def test_bad_input(words: list[str], message: str, exported: tuple[Path, Path], tmp_path: Path):
    places = {"BUNDLE": exported[1], "OUT": tmp_path / "out", "DATA": tmp_path / "d.jsonl"}
    places |= {"EMPTY": tmp_path / "e.jsonl", "BAD": tmp_path / "bad.jsonl", "BINARY": tmp_path / "b.txt"}
    places["BINARY"].write_bytes(b"\xff\xfe")
    if "SPOILT" in words:
        places["SPOILT"] = Path(shutil.copytree(exported[1], tmp_path / "spoilt"))
        with (places["SPOILT"] / "router.safetensors").open("ab") as file:
            file.write(b"more")
    places["DATA"].write_text('{"prompt": "a", "response_tokens": 3}\n')
    places["EMPTY"].write_text("")
    places["BAD"].write_text("{nonsense")
    before = sorted(exported[1].rglob("*"))
    done = mope(*(str(places.get(word, word)) for word in words))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    assert done.stdout == ""
    assert not places["OUT"].exists()
    assert sorted(exported[1].rglob("*")) == before


@pytest.mark.parametrize(
    "words", [["--threads", "0"], ["--max-tokens", "0"], ["--max-tokens", "9" * 30], ["--max-tokens", "many"]]
)
def test_flags_out_of_range(words: list[str]):
    done = mope("predict", "hello", *words)
    assert done.returncode == 2
    assert f"Invalid value for '{words[0]}'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_whole_way(tmp_path: Path, quick: tuple[str, ...]):
    """Rows to a bundle to a report and forecasts, with the commands alone."""
    from mope.data.synthetic import synthetic

    rows = [
        {"prompt": e.request.prompt, "response_tokens": e.lengths[0], "conversation": e.group}
        for e in synthetic(500).examples
    ]
    data, bundle = tmp_path / "chats.jsonl", tmp_path / "bundle"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [word for setting in quick for word in ("--set", setting)]
    trained = mope("train", str(data), "--output", str(bundle), "--preset", "tiny", *settings, "--json")
    assert trained.returncode == 0, trained.stderr
    report = json.loads(trained.stdout)["report"]
    assert json.loads((bundle / "facts.json").read_text())["evaluation"] == report
    evaluated = mope("evaluate", str(bundle), str(data), "--json", "--output", str(tmp_path / "report"))
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["columns"] == report["columns"]
    assert {"report.json", "report.md"} <= {p.name for p in (tmp_path / "report").iterdir()}
    written = mope("evaluate", str(bundle), str(data), "--part", "validation", "--facts", "--json")
    assert written.returncode == 0, written.stderr
    facts = json.loads((bundle / "facts.json").read_text())
    assert (facts["evaluation"]["data"]["part"], facts["evaluated_backend"]) == ("validation", "torch")
    again = mope("train", str(data), "--output", str(bundle), "--preset", "tiny")
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_settings_are_listed():
    done = mope("train", "x", "--output", "y", "--settings")
    assert done.returncode == 0
    assert "optim.batch: int = 32" in done.stdout
