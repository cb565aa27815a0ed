"""Chats in the spellings that data sets use, into messages of user, assistant, system and tool."""

from __future__ import annotations

from collections.abc import Mapping

from mope.data.values import Refused, listed, text_of
from mope.types import Message

ROLES = {
    "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "developer": "system",
    "tool": "tool", "function": "tool",
}  # fmt: skip


def messages_of(value: object) -> list[Message]:
    """Messages from a list (or JSON text) of role/content or from/value objects. Raises `Refused`."""
    if value is None:
        raise Refused("no messages")
    return [_message(item) for item in listed(value, "messages are not a list")]


def _message(item: object) -> Message:
    if not isinstance(item, Mapping):
        raise Refused("message is not an object")
    name = item.get("role", item.get("from"))
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise Refused("unknown role")
    # A tool call has no content: the message is there, its text is empty.
    return Message(role, text_of(item.get("content", item.get("value"))) or "")
