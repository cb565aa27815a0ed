"""Chats into requests: what a server knows of a conversation is what training data knows of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.chat import KEPT_LENGTHS, KEPT_PROMPTS, TAIL_CHARS, estimate_tokens, to_message
from mope.data.past import SEEN_LENGTHS, SEEN_PROMPTS, Past
from mope.errors import PromptError
from mope.types import Message, Request

CHATS = st.lists(
    st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), st.text("ab é", max_size=200)),
    max_size=60,
)


def test_a_chat_by_hand():
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "x" * 200 + "end"},
        Message("user", "More"),
    ]
    request = Request.from_messages(chat, model="m", max_tokens=9)
    assert (request.prompt, request.model, request.max_tokens) == ("More", "m", 9)
    assert request.history.turn == 1
    assert request.history.prompts == ("Hi",)
    assert request.history.lengths == (50,)
    assert request.history.answer_tail == "x" * (TAIL_CHARS - 3) + "end"
    assert request.history.tokens == 2 + 1 + 50


def test_known_lengths_go_before_estimates():
    chat = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert Request.from_messages(chat, answer_lengths=[7]).history.lengths == (7,)


def test_a_long_chat_is_kept_as_far_back_as_training_goes():
    chat = [Message(role, f"{role} {i}") for i in range(50) for role in ("user", "assistant")]
    history = Request.from_messages([*chat, Message("user", "now")], answer_lengths=range(50)).history
    assert history.turn == 50
    assert history.prompts == tuple(f"user {i}" for i in range(42, 50))
    assert history.lengths == tuple(range(18, 50))


def test_bounds_are_those_of_the_data():
    assert (KEPT_PROMPTS, KEPT_LENGTHS) == (SEEN_PROMPTS, SEEN_LENGTHS)


@given(CHATS)
def test_serving_knows_what_training_knew(chat: list[tuple[str, str]]):
    past = Past()
    for role, text in chat:
        past.hear(role, text, estimate_tokens(text))
    served = Request.from_messages([*(Message(role, text) for role, text in chat), Message("user", "now")])
    assert served.history == past.history()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcdefgh", 2), ("天气", 2), ("abcd天", 2), ("\ud800", 1)],
)
def test_estimated_tokens(text: str, tokens: int):
    assert estimate_tokens(text) == tokens


@pytest.mark.parametrize(
    ("chat", "words"),
    [
        ([], "ends with nothing"), ([Message("assistant", "a")], "ends with assistant"), (["hi"], "type str"),
        ([{"role": "user"}], "keys"), ([{"role": "user", "content": None}], "keys"), ([{1: 2}], "keys"),
    ],
)  # fmt: skip
def test_what_is_no_chat(chat: list[object], words: str):
    with pytest.raises(PromptError, match=words):
        Request.from_messages(chat)


def test_a_message_is_itself():
    assert to_message(message := Message("user", "a")) is message
