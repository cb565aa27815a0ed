"""A row that holds a whole conversation into one example for each answer in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from mope.data.asked import Reading, cap_of, request_of, source_of
from mope.data.messages import messages_of
from mope.data.past import Past
from mope.data.records import Example
from mope.data.shapes import Shape
from mope.data.values import Refused, fingerprint, label_of, prompt_of
from mope.types import History, Message

# ShareGPT's ids are seven characters; long conversations were cut into parts abcdefg_0, abcdefg_1, ...
_PART = re.compile(r"([A-Za-z0-9-]{7})_\d+")


def told_examples(row: Mapping[str, object], reading: Reading, refused: Counter[str]) -> Iterator[Example]:
    """Every answer that directly follows a user message. Raises `Refused` for a row that is no conversation.

    Messages that give no example are counted one by one: an answer to nothing, a question without an answer.
    """
    chat = messages_of(reading.shape.get(row, "messages"))
    if not chat:
        raise Refused("no messages")
    group, source, cap = _group(row, reading.shape, chat), source_of(row, reading), cap_of(row, reading)
    past, asked = Past(), None
    for message in chat:
        tokens = reading.count(message.content)
        if message.role == "assistant":
            try:
                request = request_of(row, reading.shape, *_question(asked))
                yield Example(request, (tokens,), group, source, cap)
            except Refused as why:
                refused[why.reason] += 1
        asked = (message.content, past.history()) if message.role == "user" else None
        past.hear(message.role, message.content, tokens)
    if asked:
        refused["no answer after the last user message"] += 1


def _question(asked: tuple[str, History] | None) -> tuple[str, History]:
    if asked is None:
        raise Refused("answer does not follow a user message")
    return prompt_of(asked[0]), asked[1]


def _group(row: Mapping[str, object], shape: Shape, chat: list[Message]) -> str:
    name = label_of(shape.get(row, "conversation")) or label_of(shape.get(row, "id"))
    if name:
        part = _PART.fullmatch(name)
        return part.group(1) if part else name
    return fingerprint(next((message.content for message in chat if message.role == "user"), ""))
