"""Bodies of OpenAI-compatible servers: what a request asks for, and how many tokens an answer has so far.

Read leniently: whatever is odd in a body is the server's to refuse, and must not become a way around the gate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mope.chat import estimate_tokens
from mope.errors import PromptError
from mope.types import History, Message, Request, Usage

MAX_TOKENS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
PROMPTS = ("messages", "prompt", "input")
MOST = 2**31
KEPT_CHARS = 2**16  # of a prompt, half from either end: more than a predictor reads
KEPT_BYTES = 8 * 2**20  # of an answer that is not streamed, and of one line of one that is


def read_request(body: object, client: str) -> Request:
    """The request that a body of /v1/chat/completions, /v1/completions or /v1/responses makes."""
    if not isinstance(body, Mapping):
        return Request("", client=client, prompt_tokens=0)
    asked = next((body[name] for name in PROMPTS if body.get(name)), "")
    copies = _count(body.get("n")) or 1
    most = next((count for name in MAX_TOKENS if (count := _count(body.get(name))) is not None), None)
    model = body.get("model")
    chat = _chat(asked)
    texts, ids = list(_texts(asked)), _ids(asked)
    return Request(
        prompt=_cut(chat.prompt if chat else "\n".join(texts)),
        client=client,
        history=_cut_history(chat.history) if chat else History(),
        prompt_tokens=min(ids + sum(map(estimate_tokens, texts)), MOST),
        max_tokens=None if most is None else min(most * copies, MOST),
        model=model if isinstance(model, str) else None,
    )


def _cut(text: str) -> str:
    return text if len(text) <= KEPT_CHARS else text[: KEPT_CHARS // 2] + text[-KEPT_CHARS // 2 :]


def _cut_history(history: History) -> History:
    return replace(history, prompts=tuple(map(_cut, history.prompts)))


def _chat(asked: object) -> Request | None:
    """A chat as the predictor reads it; None where it is none, or ends otherwise."""
    if not isinstance(asked, list) or not asked or not isinstance(asked[0], Mapping):
        return None
    plain = [
        Message(str(item.get("role")), "\n".join(_texts(item.get("content"))))
        for item in asked
        if isinstance(item, Mapping)
    ]
    try:
        return Request.from_messages(plain)
    except PromptError:
        return None


def _texts(value: object) -> Iterator[str]:
    """Every text in a prompt, in a list of prompts, or in messages with text or parts."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, Mapping):
            stack.extend(
                item[name] for name in ("text", "content") if isinstance(item.get(name), (str, list))
            )


def _ids(value: object) -> int:
    """Token ids in a prompt that is given as such, or in a list of them."""
    if not isinstance(value, list):
        return 0
    return sum(len(item) if _is_ids(item) else isinstance(item, int) for item in value)


def _is_ids(item: object) -> bool:
    return isinstance(item, list) and bool(item) and isinstance(item[0], int)


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST else None


def asks_usage(body: Mapping[str, Any]) -> bool:
    """Whether the client itself wants the usage at the end of its stream, or there is no stream."""
    options = body.get("stream_options")
    return not body.get("stream") or (isinstance(options, Mapping) and bool(options.get("include_usage")))


def asking_usage(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same request with the usage at the end of its stream."""
    options = body.get("stream_options")
    return {
        **body,
        "stream_options": {**(options if isinstance(options, Mapping) else {}), "include_usage": True},
    }


class Meter:
    """Output tokens of an answer as it goes by.

    A stream is estimated from its text, at least one token for each choice of a chunk that has something in it
    (servers put several tokens into one), until a `usage` says better; what does not stream is read at its end.
    `hide` takes the event that has nothing but the usage out of the stream: nobody but us has asked for it.
    """

    def __init__(self, streamed: bool, hide: bool = False) -> None:
        self.tokens = 0
        self._streamed, self._hide, self._counted = streamed, hide, 0
        self._rest = bytearray()
        self._long = self._swallow = False
        self._usage: Mapping[str, Any] = {}

    def feed(self, data: bytes, last: bool = False) -> bytes:
        """The next bytes of the body; what to pass on of them, and of what was held back before."""
        if not self._streamed:
            self._rest += data
            if len(self._rest) > KEPT_BYTES:
                self._rest.clear()
            return data
        passed = bytearray()
        *lines, rest = data.split(b"\n")
        for line in lines:
            passed += self._line(line + b"\n")
        self._rest += rest
        if len(self._rest) > KEPT_BYTES or last:  # too long to be read, or the end
            self._long = True
            passed += self._rest
            self._rest.clear()
        return bytes(passed) if self._hide else data

    def _line(self, end: bytes) -> bytes:
        """A line that is whole now; what to pass on of it."""
        line, long = bytes(self._rest) + end, self._long
        self._rest.clear()
        self._long = False
        if not long and line.startswith(b"data:") and self._read(_loads(line[5:])):
            self._swallow = True
            return b""
        if self._swallow and not line.strip():  # the empty line that ends the event
            self._swallow = False
            return b""
        return line

    def usage(self) -> Usage | None:
        """What the answer was; None where nothing is known of it."""
        if not self._streamed:
            self._read(_loads(bytes(self._rest)))
        if not self._usage and not self.tokens:
            return None
        prompt = _count(self._usage.get("prompt_tokens", self._usage.get("input_tokens")))
        return Usage(self.tokens, prompt)

    def _read(self, found: object) -> bool:
        """Take in an event or a whole answer; whether there is nothing but the usage in it."""
        if not isinstance(found, Mapping):
            return False
        choices, inner = found.get("choices"), found.get("response")
        if isinstance(choices, list):
            self._counted += sum(map(_output_tokens, choices))
        elif isinstance(found.get("delta"), str):  # an event of /v1/responses
            self._counted += estimate_tokens(found["delta"])
        usage = found.get("usage") or (inner.get("usage") if isinstance(inner, Mapping) else None)
        if isinstance(usage, Mapping):
            self._usage = usage
        exact = _count(self._usage.get("completion_tokens", self._usage.get("output_tokens")))
        self.tokens = max(self.tokens, self._counted) if exact is None else exact
        return choices == [] and isinstance(usage, Mapping)


def _output_tokens(choice: object) -> int:
    """Of one choice of a chunk."""
    if not isinstance(choice, Mapping):
        return 0
    delta = choice.get("delta")
    parts = delta.items() if isinstance(delta, Mapping) else [("text", choice.get("text"))]
    return sum(
        max(estimate_tokens(value), 1) if isinstance(value, str) else 1
        for name, value in parts
        if name != "role" and value
    )


def _loads(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
