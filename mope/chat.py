"""Chats into requests, and token counts estimated where no tokenizer is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mope.errors import PromptError
from mope.types import History, Message, Request

TAIL_CHARS = 120
# As far back as the training data goes (`mope.data.past` reads these): serving must not see more than training did.
KEPT_PROMPTS = 8
KEPT_LENGTHS = 32


def estimate_tokens(text: str) -> int:
    """Tokens in `text` by rule of thumb: four ASCII bytes or one other character make a token."""
    if not text:
        return 0
    ascii_chars = len(text.encode("ascii", "ignore"))
    return max(1, ascii_chars // 4 + (len(text) - ascii_chars))


def to_message(item: Message | Mapping[str, str]) -> Message:
    """A `Message` from itself or from a mapping with `role` and `content`."""
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping):
        raise PromptError(f"a chat message of type {type(item).__name__}", "a mapping with role and content")
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise PromptError(
            f"a chat message with keys {sorted(map(str, item))}", "string values for role and content"
        )
    return Message(role, content)


def to_request(
    messages: Sequence[Message | Mapping[str, str]],
    *,
    model: str | None = None,
    max_tokens: int | None = None,
    answer_lengths: Sequence[int] | None = None,
) -> Request:
    """See `Request.from_messages`."""
    chat = [to_message(item) for item in messages]
    if not chat or chat[-1].role != "user":
        last = chat[-1].role if chat else "nothing"
        raise PromptError(f"a chat that ends with {last}", "a user message at the end")
    before = chat[:-1]
    answers = [m.content for m in before if m.role == "assistant"]
    lengths = tuple(answer_lengths) if answer_lengths is not None else tuple(map(estimate_tokens, answers))
    history = History(
        turn=sum(m.role == "user" for m in before),
        prompts=tuple(m.content for m in before if m.role == "user")[-KEPT_PROMPTS:],
        lengths=lengths[-KEPT_LENGTHS:],
        answer_tail=answers[-1][-TAIL_CHARS:] if answers else "",
        tokens=sum(estimate_tokens(m.content) for m in before),
    )
    return Request(prompt=chat[-1].content, history=history, model=model, max_tokens=max_tokens)
