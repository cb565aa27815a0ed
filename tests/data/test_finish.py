from __future__ import annotations

import json
from pathlib import Path

import pytest

from mope.data.load import read_examples
from mope.data.values import finish_of

CHAT = [{"role": "user", "content": "Write on and on"}]


@pytest.mark.parametrize(
    ("row", "cap"),
    [
        ({"messages": CHAT, "finish_reason": "length", "usage": {"completion_tokens": 40}}, 40),
        ({"messages": CHAT, "finish_reason": "stop", "usage": {"completion_tokens": 40}}, None),
        ({"prompt": "p", "response_tokens": 7, "finish_reason": "max_tokens"}, 7),
        ({"prompt": "p", "response_tokens": 7, "finish_reason": "length", "cap": 9}, 9),
        ({"prompt": "p", "response_tokens": [7, 9], "finish_reason": "length"}, None),
        (
            {
                "request": {"messages": CHAT},
                "response": {
                    "choices": [{"finish_reason": "length", "message": {"content": "x"}}],
                    "usage": {"completion_tokens": 12},
                },
            },
            12,
        ),
    ],
)
def test_an_answer_that_ran_into_its_limit_was_cut_where_it_ends(
    tmp_path: Path, row: dict[str, object], cap: int | None
) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = read_examples([tmp_path / "log.jsonl"]).examples
    assert example.cap == cap


@pytest.mark.parametrize(
    "value", [None, 3, [], [3], [{}], [{"finish_reason": 1}], {"finish_reason": "length"}]
)
def test_what_says_nothing_of_the_end_is_left_alone(value: object) -> None:
    assert finish_of(value) == ""
