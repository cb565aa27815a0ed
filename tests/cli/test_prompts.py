"""Which word is the bundle and which the prompt, and prompts read from files and stdin."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mope.cli.prompts import read_prompts, split_arguments
from mope.cli.running import forecast_table
from mope.errors import DataError, PromptError
from mope.types import LengthForecast, Request

CHAT = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "more"},
]


def prompts(file: Path | str, stdin: str = "") -> list[str]:
    return [request.prompt for request in read_prompts(None, Path(file), io.StringIO(stdin))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("a prompt", None, False), (None, "a prompt")),
        (("bundle", "a prompt", False), ("bundle", "a prompt")),
        (("bundle", None, True), ("bundle", None)),
        (("", None, True), (None, None)),
        (("", None, False), (None, "")),  # the predictor refuses the empty prompt
        (("word " * 100, None, False), (None, "word " * 100)),  # longer than a file name may be
        (("a\0b", None, False), (None, "a\0b")),
    ],
)
def test_words(words: tuple[str, str | None, bool], expected: tuple[str | None, str | None]):
    assert split_arguments(*words) == expected


def test_words_that_contradict(tmp_path: Path):
    with pytest.raises(PromptError, match="a prompt and --file"):
        split_arguments("bundle", "prompt", True)
    (tmp_path / "config.json").write_text("")
    with pytest.raises(PromptError, match="without a prompt"):
        split_arguments(str(tmp_path), None, False)


def test_the_prompt_of_the_command_line():
    (request,) = read_prompts("a\nb", None, io.StringIO(), "m", 9)
    assert (request.prompt, request.model, request.max_tokens) == ("a\nb", "m", 9)


@pytest.mark.parametrize("text", ["one\n\n  \ntwo\u2028three\x0c\n", "\ufeffone\r\ntwo\u2028three\x0c"])
def test_one_prompt_a_line(text: str, tmp_path: Path):
    (tmp_path / "p.txt").write_text(text, encoding="utf-8", newline="")
    assert prompts(tmp_path / "p.txt") == ["one", "two\u2028three\x0c"]
    assert prompts("-", text.replace("\r\n", "\n")) == ["one", "two\u2028three\x0c"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(
                {k: v if isinstance(v, str) else json.dumps(v) for k, v in r.items()} for r in rows
            )
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_rows_with_prompts(suffix: str, tmp_path: Path):
    rows = [{"prompt": 'one, "two"\nthree', "other": "1"}, {"prompt": "四", "other": "2"}]
    assert prompts(write(tmp_path / f"p{suffix}", rows)) == [row["prompt"] for row in rows]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_rows_with_chats(suffix: str, tmp_path: Path):
    path = write(tmp_path / f"p{suffix}", [{"messages": CHAT}, {"messages": CHAT[:1]}])
    first, second = read_prompts(None, path, io.StringIO(), "m")
    assert (first.prompt, first.history.prompts, first.history.turn) == ("more", ("hi",), 1)
    assert (second.prompt, second.history.prompts, second.model) == ("hi", (), "m")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, "No such file"), ("p.txt", b"", "without a prompt"), ("p.txt", b"\n \n", "without"),
        ("p.txt", b"\xff\xfe", "not UTF-8"), ("p.pdf", b"x", "p.pdf"), ("none.jsonl", None, "none.jsonl"),
        ("p.jsonl", b'{"text": "a"}', "columns text"), ("p.jsonl", b"", "no rows"), ("p.jsonl", b"{", "not JSON"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 3}', "row 2"), ("p.jsonl", b'{"prompt": "a"}\n[1]', "an object"),
        ("p.jsonl", b'{"prompt": ""}', "row 1"), ("p.jsonl", b'{"messages": []}', "row 1: a chat that ends with"),
        ("p.parquet", b"PAR1", "p.parquet"),
        ("p.jsonl", b'{"messages": [{"role": "assistant", "content": "a"}]}', "ends with assistant"),
        ("p.jsonl", b'{"messages": [{"role": "ghost", "content": "a"}]}', "row 1: unknown role"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(name: str, content: bytes | None, words: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        prompts(tmp_path / name)


def test_stdin_that_is_not_text():
    stdin = io.TextIOWrapper(io.BytesIO(b"one\n\xff"), encoding="utf-8")
    with pytest.raises(DataError, match="stdin that is not UTF-8"):
        read_prompts(None, Path("-"), stdin)


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("What does [/INST] do? [bold]x", "What does [/INST] do? [bold]x"), ("a\n\t b", "a b"),
        ("\x1b[31mred\x07", "\ufffd[31mred\ufffd"), ("\ud800 é 天", "\ufffd é 天"), ("x" * 100, "x" * 59 + "…"),
    ],
)  # fmt: skip
def test_prompts_in_a_table(prompt: str, shown: str, capsys: pytest.CaptureFixture[str]):
    """As they are: no markup, nothing that a terminal obeys, nothing that cannot be printed."""
    forecast = LengthForecast(5, 1, 9, (0.5,), (5.0,), "short", (0.7, 0.2, 0.1))
    forecast_table([Request(prompt)], [forecast])
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split("  ")[0].strip() == shown
    assert " ".join(row.split()).endswith("5 1 to 9 short 0.70 / 0.20 / 0.10")
