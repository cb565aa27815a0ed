"""Which tokens the encoder reads, and which prompts are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from mope.errors import PromptError
from mope.predictor.config import TextConfig
from mope.predictor.text import CHARS_PER_TOKEN, check_prompt, cut, encode
from mope.types import History, Request

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
RULE = TextConfig(prompt_head=3, prompt_tail=2, earlier_prompt=2, answer_tail=2)


@pytest.fixture
def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def read(request: Request, tokenizer: Tokenizer) -> tuple[str, str]:
    ids, segments = encode([request], tokenizer, RULE)[0]
    names = {"[CLS]": "^", "[SEP]": "|", "[UNK]": "?"}
    return "".join(names.get(WORDS[i], WORDS[i]) for i in ids), "".join(map(str, segments))


def test_a_prompt_alone(tokenizer: Tokenizer):
    assert read(Request("a b c"), tokenizer) == ("^abc|", "00000")


def test_head_and_tail_of_a_long_prompt(tokenizer: Tokenizer):
    assert read(Request("a b c d e f g h"), tokenizer) == ("^abcgh|", "0000000")


def test_the_context_is_the_head_of_the_last_prompt_and_the_tail_of_the_answer(tokenizer: Tokenizer):
    history = History(prompts=("h", "a b c d"), answer_tail="e f g")
    assert read(Request("a", history=history), tokenizer) == ("^a|ab|fg|", "000111111")


def test_many_at_once_are_as_one_by_one(tokenizer: Tokenizer):
    requests = [Request("a b " * (i % 5 + 1), history=History(prompts=("c d e",))) for i in range(40)]
    assert encode(requests, tokenizer, RULE) == [encode([r], tokenizer, RULE)[0] for r in requests]


def test_cut_keeps_what_can_matter():
    assert cut("x" * 10, 1, 0) == "x" * 10
    text = "a" * (2 * CHARS_PER_TOKEN) + "m" * 1000 + "z" * CHARS_PER_TOKEN
    assert cut(text, 2, 1) == "a" * (2 * CHARS_PER_TOKEN) + " " + "z" * CHARS_PER_TOKEN


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "empty"), (" \n\t", "empty"), ("x" * 10_000_000, "10,000,000 characters"),
        ("\x00\x01\x02\x03" * 20, "control characters"), (b"bytes", "type bytes"), (None, "type NoneType"),
    ],
)  # fmt: skip
def test_refused(prompt: object, words: str):
    with pytest.raises(PromptError, match=words):
        check_prompt(prompt)


@given(st.text(st.characters(), min_size=1))
def test_any_other_text_is_encoded(text: str):
    """Lone surrogates and control characters included: nothing but a PromptError may come."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    try:
        check_prompt(text)
    except PromptError:
        return
    ids, segments = encode([Request(text)], made, RULE)[0]
    assert 2 <= len(ids) == len(segments) <= RULE.max_tokens
