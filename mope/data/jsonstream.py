"""A large JSON file value by value, so that an array of a million chats never stands in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TextIO

CHUNK = 1 << 20
_GAP = re.compile(r"[\s,]*")


def values(handle: TextIO) -> Iterator[object]:
    """The items of a JSON array, or JSON values that follow each other.

    Raises `ValueError` where the text is not JSON or the array does not end.
    """
    decoder = json.JSONDecoder()
    buffer = handle.read(CHUNK).lstrip()
    array = buffer.startswith("[")
    at, chunk, ended = int(array), CHUNK, False
    while True:
        at = _skip(buffer, at)
        if array and buffer.startswith("]", at):
            return _nothing_after(buffer[at + 1 :] + handle.read(CHUNK))
        if at < len(buffer):
            try:
                value, stop = decoder.raw_decode(buffer, at)
            except ValueError:
                if ended:
                    raise
                stop = -1
            # A number near the end of the buffer may go on after it: 12 of 123, or 1 and e+ of 1e+5.
            if stop >= 0 and (stop + 2 < len(buffer) or ended):
                yield value
                at, chunk = stop, CHUNK
                continue
        elif ended:
            return _complete(array)
        more = handle.read(chunk)
        ended, chunk = not more, chunk * 2
        buffer, at = buffer[at:] + more, 0


def _skip(buffer: str, at: int) -> int:
    gap = _GAP.match(buffer, at)
    return gap.end() if gap else at


def _nothing_after(rest: str) -> None:
    if rest.strip():
        raise ValueError("text after the end of the array")


def _complete(array: bool) -> None:
    if array:
        raise ValueError("the array does not end")
