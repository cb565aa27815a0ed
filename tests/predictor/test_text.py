"""Which tokens the encoder reads, and which prompts are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from mope.errors import BundleError, PromptError
from mope.predictor.config import TextConfig
from mope.predictor.text import CHARS_PER_TOKEN, check_prompt, cut, encode
from mope.types import History, Request

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", "##x", "##y"]
RULE = TextConfig(prompt_head=3, prompt_tail=2, earlier_prompt=2, answer_tail=2)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return word_pieces()


def word_pieces() -> Tokenizer:
    """A WordPiece tokenizer of ten pieces."""
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def read(request: Request, tokenizer: Tokenizer) -> tuple[str, str]:
    ids, segments = encode([request], tokenizer, RULE)[0]
    names = {"[CLS]": "^", "[SEP]": "|", "[UNK]": "?", "##x": "x", "##y": "y"}
    return "".join(names.get(WORDS[i], WORDS[i]) for i in ids), "".join(map(str, segments))


def test_a_prompt_alone(tokenizer: Tokenizer):
    assert read(Request("a b c"), tokenizer) == ("^abc|", "00000")


def test_tokens_are_counted_not_words(tokenizer: Tokenizer):
    assert read(Request("ax b"), tokenizer) == ("^axb|", "00000")
    assert read(Request("axyx bxy"), tokenizer) == ("^axyxy|", "0000000")  # x, the fourth, and b fall out
    assert read(Request("az b"), tokenizer) == ("^?b|", "0000")


def test_special_tokens_in_a_prompt_are_text(tokenizer: Tokenizer):
    assert read(Request("[SEP]"), tokenizer) == ("^???|", "00000")


@pytest.mark.parametrize("size", [5, 6])
def test_nothing_is_cut_from_a_prompt_that_fits(size: int, tokenizer: Tokenizer):
    text = "abcdefgh"[:size]
    kept = text if size == 5 else "abcef"
    assert read(Request(" ".join(text)), tokenizer)[0] == f"^{kept}|"


def test_head_and_tail_of_a_long_prompt(tokenizer: Tokenizer):
    assert read(Request("a b c d e f g h"), tokenizer) == ("^abcgh|", "0000000")


def test_the_context_is_the_head_of_the_last_prompt_and_the_tail_of_the_answer(tokenizer: Tokenizer):
    history = History(prompts=("h", "a b c d"), answer_tail="e f g")
    assert read(Request("a", history=history), tokenizer) == ("^a|ab|fg|", "000111111")


def test_half_a_context(tokenizer: Tokenizer):
    assert read(Request("a", history=History(prompts=("b",))), tokenizer) == ("^a|b||", "000111")
    assert read(Request("a", history=History(answer_tail="b")), tokenizer) == ("^a||b|", "000111")
    assert read(Request("a", history=History(turn=3, lengths=(5,))), tokenizer) == ("^a|", "000")


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
        ("\x00", "control characters"), (" " * 5000, "empty"), ("\u2028\u3000", "empty"), (3, "type int"),
    ],
)  # fmt: skip
def test_refused(prompt: object, words: str):
    with pytest.raises(PromptError, match=words):
        check_prompt(prompt)


@pytest.mark.parametrize(
    "prompt", ["a", " " * 5000 + "a", "a\x00b\x01cdefgh", "\ud800", "\n\t\r\f\va", "x" * 8_000_000]
)
def test_taken_as_it_is(prompt: str, tokenizer: Tokenizer):
    assert check_prompt(prompt) is prompt
    ids, segments = encode([Request(prompt)], tokenizer, RULE)[0]
    assert 2 <= len(ids) == len(segments) <= RULE.max_tokens


def test_what_stands_in_the_middle_of_a_long_prompt_costs_nothing(tokenizer: Tokenizer):
    """And it does not matter: only the ends are cut into tokens."""
    ends = "a b c d e f g h " * 10
    short, long = (
        encode([Request(ends + filler + ends)], tokenizer, RULE)[0] for filler in ("h ", "g " * 10**6)
    )
    assert short == long


def test_a_tokenizer_that_is_none_of_ours():
    foreign = Tokenizer(models.WordPiece({"a": 0}, unk_token="[UNK]"))
    with pytest.raises(BundleError, match="cannot cut a text"):  # it has no piece for what it does not know
        encode([Request("b")], foreign, RULE)
    with pytest.raises(BundleError, match=r"without \[CLS\]"):
        encode([Request("a")], foreign, RULE)


@given(st.text(st.characters(), min_size=1))
def test_any_other_text_is_encoded(text: str):
    """Lone surrogates and control characters included: nothing but a PromptError may come."""
    try:
        check_prompt(text)
    except PromptError:
        return
    ids, segments = encode([Request(text)], word_pieces(), RULE)[0]
    assert 2 <= len(ids) == len(segments) <= RULE.max_tokens
