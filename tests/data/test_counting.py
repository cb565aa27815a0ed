from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mope.chat import estimate_tokens
from mope.data.counting import token_count
from mope.data.load import read_examples
from mope.errors import DataError


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """Counts words, and would stop at three if its stored limit were obeyed."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.enable_truncation(3)
    made.enable_padding(length=9)
    folder = tmp_path / "words"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_without_a_tokenizer_counts_are_estimates() -> None:
    count = token_count(None)
    assert not count.exact
    assert count("some words here") == estimate_tokens("some words here")


def test_a_tokenizer_counts_whole_texts(tokenizer: Path) -> None:
    for name in (tokenizer, tokenizer / "tokenizer.json"):
        count = token_count(str(name))
        assert count.exact
        assert [count(text) for text in ("", "a", "a b c d e f")] == [0, 1, 6]


def test_a_tokenizer_goes_before_a_length_column_where_there_is_text(tokenizer: Path, write: Any) -> None:
    row = {"prompt": "p", "response": "a b c d e", "response_tokens": 99}
    data = read_examples([write("a.jsonl", [row])], tokenizer=str(tokenizer))
    assert (data.examples[0].lengths, data.notes) == ((5,), [])
    data = read_examples(
        [write("b.jsonl", [{"prompt": "p", "response_tokens": 99}])], tokenizer=str(tokenizer)
    )
    assert data.examples[0].lengths == (99,)
    assert "no answer texts to count" in data.notes[0]


def test_earlier_answers_are_counted_in_the_same_unit(tokenizer: Path, write: Any) -> None:
    chat = [("human", "q"), ("gpt", "abcdefghijkl b"), ("human", "r r"), ("gpt", "x")]
    row = {"conversations": [{"from": who, "value": text} for who, text in chat]}
    data = read_examples([write("a.jsonl", [row])], tokenizer=str(tokenizer))
    assert [example.lengths for example in data.examples] == [(2,), (1,)]
    history = data.examples[1].request.history
    assert (history.lengths, history.tokens) == ((2,), 3)
    assert not data.notes


@pytest.mark.parametrize("content", ["", "{}", "[]", "\ufeff", '{"model": {"type": "WordLevel"}}'])
def test_a_broken_tokenizer_is_a_data_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=r"tokenizer .* cannot be read"):
        token_count(str(tmp_path))


@pytest.mark.parametrize("name", ["no/such/place", "owner/name", "", "./x.json"])
def test_a_tokenizer_that_is_not_there_is_a_data_error(name: str) -> None:
    with pytest.raises(DataError, match=r"tokenizer .* cannot be read"):
        token_count(name)


def test_a_folder_without_a_tokenizer_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        token_count(str(tmp_path))
