from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mope.data.load import read_examples
from mope.errors import DataError

PROMPTS = [
    {"prompt_id": "a", "prompt": "Alpha?", "prompt_tokens_llama2": 3},
    {"prompt_id": "b", "prompt": "x" * 9000, "prompt_tokens_llama2": 2000},
]


def lengths(*rows: tuple[str, str, Any, Any]) -> list[dict[str, Any]]:
    return [
        {"prompt_id": prompt, "model": model, "response_tokens_llama2": length, "cap": cap}
        for prompt, model, length, cap in rows
    ]


def test_rows_of_one_prompt_and_model_become_one_example(write: Any) -> None:
    path = write("chat_prompts.parquet", PROMPTS)
    write(
        "chat_lengths.parquet",
        lengths(("a", "m", 10, 400.0), ("a", "n", 11, None), ("b", "m", 5, None), ("a", "m", 400, 400.0)),
    )
    data = read_examples([path])
    assert [(e.group, e.request.model, e.lengths, e.cap) for e in data.examples] == [
        ("a", "m", (10, 400), 400), ("a", "n", (11,), None), ("b", "m", (5,), None),
    ]  # fmt: skip
    assert data.sources == ["chat"] * 3
    assert data.requests[0].prompt == "Alpha?"
    assert (len(data.requests[2].prompt), data.requests[2].prompt_tokens) == (6000, 2000)


def test_samples_cut_at_different_caps_stay_apart(write: Any) -> None:
    write("c_prompts.jsonl", PROMPTS)
    path = write("c_lengths.jsonl", lengths(("a", "m", 128, 128), ("a", "m", 300, 400)))
    assert [(e.lengths, e.cap) for e in read_examples([path]).examples] == [((128,), 128), ((300,), 400)]


def test_lists_of_samples_are_joined_and_sources_told_apart(write: Any) -> None:
    prompts = write("c_prompts.jsonl", [row | {"dataset": "Dolly"} for row in PROMPTS])
    rows = [{"prompt_id": "a", "model": "m", "output_tokens_native": [1, 2], "input_tokens_native": 4},
            {"prompt_id": "a", "model": "m", "output_tokens_native": [3]}]  # fmt: skip
    (example,) = read_examples([prompts, write("c_lengths.jsonl", rows)]).examples
    assert (example.lengths, example.source, example.request.prompt_tokens) == ((1, 2, 3), "Dolly", 4)


def test_a_folder_holds_the_pair_once(write: Any, tmp_path: Path) -> None:
    write("c_prompts.csv", PROMPTS)
    write("c_lengths.parquet", lengths(("a", "m", 1, None)))
    write("other.jsonl", [{"prompt": "p", "response_tokens": 1}])
    assert read_examples([tmp_path]).sources == ["c", "other"]


def test_rows_that_do_not_join_are_counted(write: Any) -> None:
    path = write("c_prompts.jsonl", [*PROMPTS, {"prompt": "no id"}])
    write("c_lengths.jsonl", lengths(("a", "m", 1, None), ("zz", "m", 1, None), ("a", "m", -1, None)))
    data = read_examples([path])
    assert len(data) == 1
    assert data.refused == {"no prompt for this prompt_id": 1, "no prompt_id": 1, "length is negative": 1}


def test_a_pair_without_the_joining_column_is_an_error(write: Any) -> None:
    path = write("c_prompts.jsonl", [{"prompt": "p"}])
    write("c_lengths.jsonl", lengths(("a", "m", 1, None)))
    with pytest.raises(DataError, match=r"no prompt_id column in .*c_prompts"):
        read_examples([path])


def test_lengths_without_their_prompts_are_an_error(write: Any) -> None:
    with pytest.raises(DataError, match=r"no prompt column in .*lonely_lengths"):
        read_examples([write("lonely_lengths.jsonl", lengths(("a", "m", 1, None)))])
