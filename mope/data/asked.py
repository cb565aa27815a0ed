"""A row that holds a prompt or a chat beside its answer (or the answer's length) into an example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mope.chat import TAIL_CHARS
from mope.data.counting import TokenCount
from mope.data.messages import messages_of
from mope.data.past import Past
from mope.data.records import Example
from mope.data.shapes import Shape
from mope.data.values import (
    Refused,
    count_of,
    counts_of,
    fingerprint,
    finish_of,
    label_of,
    prompt_of,
    setting_of,
    shorten,
    text_of,
)
from mope.types import History, Message, Request

CUT_OFF = ("length", "max_tokens")  # how engines and services say that an answer reached its limit


@dataclass(frozen=True)
class Reading:
    """How the rows of one table are read: its shape, the default source, and who counts tokens."""

    shape: Shape
    source: str
    count: TokenCount

    @property
    def counts_text(self) -> bool:
        """Whether lengths are counted from the answer's text, not taken from a column."""
        fields = self.shape.fields
        return self.shape.told or "length" not in fields or (self.count.exact and "response" in fields)


def asked_example(row: Mapping[str, object], reading: Reading) -> Example:
    """The example of one row; its history is what the row itself tells. Raises `Refused`."""
    get = reading.shape.get
    if "messages" in reading.shape.fields:
        prompt, history, first = _chat(row, reading)
    else:
        prompt, history = prompt_of(get(row, "prompt")), _own_history(row, reading.shape)
        first = prompt
    lengths = _lengths(row, reading)
    request = request_of(row, reading.shape, prompt, history)
    cap = cap_of(row, reading)
    if cap is None and len(lengths) == 1 and finish_of(get(row, "finish")) in CUT_OFF:
        cap = lengths[0]
    return Example(request, lengths, _group(row, reading.shape, first), source_of(row, reading), cap)


def request_of(row: Mapping[str, object], shape: Shape, prompt: str, history: History) -> Request:
    """A request with the size, limit and model that the row tells."""
    return Request(
        shorten(prompt),
        history=history,
        prompt_tokens=None if shape.told else count_of(shape.get(row, "prompt_tokens"), "prompt_tokens"),
        max_tokens=count_of(shape.get(row, "max_tokens"), "max_tokens"),
        temperature=setting_of(shape.get(row, "temperature"), "temperature"),
        top_p=setting_of(shape.get(row, "top_p"), "top_p"),
        model=label_of(shape.get(row, "model")) or None,
    )


def source_of(row: Mapping[str, object], reading: Reading) -> str:
    """Where the row comes from: its own word for it, else the table's."""
    return label_of(reading.shape.get(row, "source")) or reading.source


def cap_of(row: Mapping[str, object], reading: Reading) -> int | None:
    """The limit that answers were cut at, where one is told."""
    return count_of(reading.shape.get(row, "cap"), "cap")


def answer_tail(row: Mapping[str, object], shape: Shape) -> str:
    """The end of the row's own answer, for the history of the turns after it."""
    return (text_of(shape.get(row, "response")) or "")[-TAIL_CHARS:]


def _own_history(row: Mapping[str, object], shape: Shape) -> History:
    if not shape.fields.keys() & {"turn", "tail", "context_tokens"}:
        return History()
    return History(
        turn=count_of(shape.get(row, "turn"), "turn"),
        answer_tail=(text_of(shape.get(row, "tail")) or "")[-TAIL_CHARS:],
        tokens=count_of(shape.get(row, "context_tokens"), "context_tokens"),
    )


def _chat(row: Mapping[str, object], reading: Reading) -> tuple[str, History, str]:
    """Last user message, what stood before it, and the first user message."""
    chat = messages_of(reading.shape.get(row, "messages"))
    if chat and chat[-1].role == "assistant" and "response" not in reading.shape.fields:
        # The answer whose length the row tells stands at the end of the chat.
        chat.pop()
    if not chat or chat[-1].role != "user":
        raise Refused("chat does not end with a user message")
    prompt = prompt_of(chat[-1].content)
    return prompt, past_of(chat[:-1], reading.count).history(), _first_prompt(chat)


def past_of(chat: list[Message], count: TokenCount) -> Past:
    """What is known after all of `chat`."""
    past = Past()
    for message in chat:
        past.hear(message.role, message.content, count(message.content))
    return past


def _first_prompt(chat: list[Message]) -> str:
    return next(message.content for message in chat if message.role == "user")


def _lengths(row: Mapping[str, object], reading: Reading) -> tuple[int, ...]:
    if not reading.counts_text:
        return counts_of(reading.shape.get(row, "length"), "length")
    answer = text_of(reading.shape.get(row, "response"))
    if answer is None:
        raise Refused("no length")
    return (reading.count(answer),)


def _group(row: Mapping[str, object], shape: Shape, first: str) -> str:
    """Conversation, else prompt id, else what the first prompt says, so that equal prompts stay together."""
    return (
        label_of(shape.get(row, "conversation"))
        or label_of(shape.get(row, "prompt_id"))
        or fingerprint(first)
    )
