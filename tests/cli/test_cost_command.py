"""`mope cost` as a user types it, with the bundle that ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mope.cli import build_app
from mope.cli.sizes import read_sizes
from mope.errors import ConfigError, DataError, MopeError

ROWS: list[dict[str, Any]] = [
    {
        "prompt": "Write a haiku.",
        "conversation_id": "a",
        "prompt_tokens_cl100k": 5,
        "context_tokens_cl100k": 95,
    },
    {
        "prompt": "Another one.",
        "conversation_id": "a",
        "prompt_tokens_cl100k": 3,
        "context_tokens_cl100k": 197,
    },
    {"prompt": "Explain quicksort.", "conversation_id": "b", "prompt_tokens_cl100k": None},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    return file


def run(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(build_app(), ["cost", *words], input=stdin)


def test_for_people() -> None:
    done = run("-", "--prices", "gpt-4o", stdin="Write a haiku.\nExplain quicksort.\n")
    assert done.exit_code == 0, done.output
    assert "80 % interval" in done.stdout
    assert "2 estimated at four characters a token" in done.stdout
    assert "gpt-4o, input 2.5, cached input 1.25, output 10 USD per million tokens, as of 20" in done.stdout


def test_for_machines_with_sizes_from_the_file(rows: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"date": "2026-11-01", "models": {"mine": {"input": 1, "output": 10}}}')
    done = run(str(rows), "--prices", "mine", "--price-list", str(own), "--json", "--seed", "3")
    found = json.loads(done.stdout)
    assert found["columns"] == ["prompt_tokens_cl100k", "conversation_id", "context_tokens_cl100k"]
    assert (found["requests"], found["conversations"], found["estimated_prompts"]) == (3, 2, 1)
    assert 300 < found["prompt_tokens"]["value"] < 308
    bill = found["bill"]
    assert bill["total"]["value"] == pytest.approx(
        bill["prompt"]["value"] + bill["output"]["value"], rel=0.01
    )
    assert bill["output"]["high"] == pytest.approx(found["output_tokens"]["high"] * 1e-5)
    assert (
        run(str(rows), "--prices", "mine", "--price-list", str(own), "--json", "--seed", "3").stdout
        == done.stdout
    )


def test_own_hardware_alone_and_beside_a_price() -> None:
    words = ("-", "--hardware", "llama-2-7b@a100-80g", "--usd-per-gpu-hour", "36", "--batch", "8")
    found = json.loads(run(*words, "--json", stdin="Write a haiku.\n").stdout)
    busy = found["hardware"]
    assert (found["bill"], busy["calibrated"], busy["batch"]) == (None, True, 8)
    assert busy["cost"]["value"] == pytest.approx(busy["gpu_s"]["value"] / 100)
    done = run(*words, "--prices", "gpt-4o", stdin="Write a haiku.\n")
    assert "GPU-seconds" in done.stdout
    assert "answers" in done.stdout
    assert "llama-2-7b@a100-80g (calibrated), 8 at a time, 36 USD per GPU-hour" in done.stdout


def test_max_tokens_bounds_the_answers(rows: Path) -> None:
    found = json.loads(run(str(rows), "--prices", "gpt-4o", "--max-tokens", "10", "--json").stdout)
    assert found["output_tokens"]["high"] <= 30


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["ROWS", "--prices", "no-such-model"], ConfigError, "no-such-model"),
        (["none.jsonl", "--prices", "gpt-4o"], DataError, "none.jsonl"),
        (["ROWS"], ConfigError, "neither --prices nor --hardware"),
        (["ROWS", "--hardware", "llama-2-7b@a101"], ConfigError, "a101"),
        (["ROWS", "--hardware", "llama-2-7b@3xa100-80g"], ConfigError, "32 heads"),
        (["ROWS", "--prices", "gpt-4o", "--price-list", "none.json"], DataError, "none.json"),
        (["ROWS", "--prices", "gpt-4o", "--draws", "3"], ConfigError, "draws"),
    ],
)
def test_bad_input_is_told(rows: Path, words: list[str], error: type[MopeError], message: str) -> None:
    done = run(*(str(rows) if word == "ROWS" else word for word in words))
    assert isinstance(done.exception, error)
    assert done.exception.exit_code == 2
    assert message in str(done.exception)
    assert done.stdout == ""


def test_sizes_and_labels_of_rows(rows: Path, tmp_path: Path) -> None:
    assert read_sizes(Path("-")) is None
    found = read_sizes(rows)
    assert found is not None
    assert (found.tokens, found.labels) == ([100, 200, None], ["a", "a", "b"])
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"prompt": "x", "input_tokens": 4}\n')
    assert read_sizes(bare) == ([4], [None], ("input_tokens",))


def test_a_size_that_is_none_names_the_row(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "x", "prompt_tokens": 4}\n{"prompt": "y", "prompt_tokens": -4}\n')
    with pytest.raises(DataError, match=r"row 2: prompt_tokens is negative"):
        read_sizes(file)
