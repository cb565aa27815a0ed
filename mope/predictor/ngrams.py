"""Words of a prompt and their hashed uni- and bigrams: the cheap bag of words of the lexical router."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mope.types import Request

HEAD_CHARS = 512
TAIL_CHARS = 128
MAX_WORDS = 64
# A "word" longer than this on average is text written without spaces: it is cut into characters.
SPACELESS = 12
FIRST_WORD = crc32(b"first word")
SERVED_MODEL = crc32(b"served model")
_PUNCTUATION = bytes.maketrans(b".,;:!?()[]{}\"'`*#", b" " * 17)


def head(text: str) -> str:
    """The part of `text` that is looked at: its first `HEAD_CHARS` and last `TAIL_CHARS` characters."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]} {text[-TAIL_CHARS:]}"


def words(text: str) -> list[bytes]:
    """Lower-case words of `text` (already a head) without punctuation, as UTF-8, unbounded in number."""
    low = text.lower()
    found = low.encode("utf-8", "replace").translate(_PUNCTUATION).split()
    if not text.isascii() and len(low) > SPACELESS * len(found):
        return [char.encode("utf-8", "replace") for char in low[: 2 * MAX_WORDS] if not char.isspace()]
    return found


def hashes(found: list[bytes], model: str | None = None) -> list[int]:
    """Unsigned 32-bit hashes of the uni- and bigrams of the first and last words, and of the served model.

    The same on every machine and in every process (CRC-32), unlike `hash`.
    """
    if len(found) > MAX_WORDS:
        found = found[: MAX_WORDS - MAX_WORDS // 4] + found[-MAX_WORDS // 4 :]
    single = list(map(crc32, found))
    # The hash of a pair continues the hash of its first word, so no pair of strings is ever joined.
    double = list(map(crc32, found[1:], single))
    # Even a prompt without words has this one, so nobody's bag is empty.
    double.append(crc32(found[0] if found else b"", FIRST_WORD))
    if model:
        double.append(crc32(model.encode("utf-8", "replace"), SERVED_MODEL))
    return single + double


def bucket_ids(
    requests: Sequence[Request], bits: int, tokens: Sequence[list[bytes]] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bucket ids in [0, 2**bits) of all requests, joined, and where each request's ids start.

    Returns `(ids [total], starts [n + 1])`: the ids of request i are `ids[starts[i]:starts[i + 1]]`.
    `tokens[i]` are the words of request i, where they are at hand already.
    """
    if tokens is None:
        tokens = [words(head(request.prompt)) for request in requests]
    joined: list[int] = []
    starts = [0]
    for request, found in zip(requests, tokens, strict=True):
        joined += hashes(found, request.model)
        starts.append(len(joined))
    # CRC-32 is linear: neighbours differ in few bits. A multiplication spreads them over the top bits.
    packed = np.frombuffer(struct.pack(f"{len(joined)}I", *joined), dtype=np.uint32)
    mixed = packed.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(64 - bits)).astype(np.int64), np.array(starts, dtype=np.int64)
