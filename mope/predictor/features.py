"""Numbers that are cheap to read off a request and say something about the length of its answer.

Pure Python on a bounded part of the text, no tokenizer, one array at the end: about ten microseconds
a request.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mope.predictor.ngrams import head, words
from mope.types import History, Request

# One flag for each line; any of its words sets it. Whole words, because a set finds all of them at once.
KEYWORDS = {
    "what": "what whats which", "how": "how", "why": "why", "write": "write draft compose",
    "give": "give provide", "list": "list lists bullet bulleted", "create": "create make",
    "continue": "continue proceed keep go next", "explain": "explain describe elaborate",
    "can": "can could would", "please": "please pls", "translate": "translate translation",
    "summarize": "summarize summarise summary summarized", "table": "table columns csv",
    "code": "code function script python javascript class import", "yes": "yes yeah sure yep",
    "rewrite": "rewrite rephrase paraphrase reword revise", "short": "short shorter brief briefly concise",
    "more": "more another other again", "detail": "detail details detailed comprehensive thorough",
    "no": "no not don", "thank": "thank thanks great good", "ok": "ok okay", "only": "only just",
    "example": "example examples", "essay": "essay article blog report", "story": "story chapter",
    "step": "step steps guide tutorial plan", "reply": "reply answer respond say understood",
    "acknowledge": "acknowledge read wait remember", "long": "long longer words paragraphs",
    "is": "is are does do did", "fix": "fix error wrong bug correct", "one": "one single sentence",
    "generate": "generate ideas suggest", "you": "you your", "act": "act role", "each": "each all every",
}  # fmt: skip
_FLAGS = {word.encode(): flag for flag, row in enumerate(KEYWORDS.values()) for word in row.split()}
_ALL_FLAGS = frozenset(_FLAGS)
SURFACE: tuple[str, ...] = (
    "chars", "words", "word_chars", "lines", "questions", "fences", "colons", "commas", "quotes", "periods",
    "slashes", "brackets", "digit_share", "upper_share", "non_ascii_share", "ends_in", "first_number",
    "asked_tokens", *(f"says_{word}" for word in KEYWORDS),
)  # fmt: skip
CONTEXT: tuple[str, ...] = (
    "max_tokens", "turn", "answers", "last_answer", "second_last_answer", "third_last_answer", "mean_answer",
    "median_answer", "longest_answer", "shortest_answer", "context_tokens", "previous_chars",
    "repeats_previous", "similarity", "similar_answer", "tail_ends_in", "tail_fences", "answer_trend",
)  # fmt: skip
NAMES: tuple[str, ...] = SURFACE + CONTEXT
SAMPLING: tuple[str, ...] = ("temperature", "top_p")
ALL: tuple[str, ...] = (
    NAMES + SAMPLING
)  # what the networks of a bundle read whose training data told the settings

SEEN_PROMPTS = 8
SEEN_LENGTHS = 32
SEEN_CHARS = 60
ENDINGS = {".": 1.0, "!": 1.0, "?": 2.0, ":": 3.0, ",": 4.0, "`": 5.0, '"': 6.0, "'": 6.0, ")": 7.0, "]": 7.0}
MISSING = float("nan")
_NO_HISTORY = [MISSING] * len(CONTEXT[2:])
_DIGITS = b"0123456789"
_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HIGH = bytes(range(128, 256))
# The digit comes first and what may not stand before it is looked up then: twice as fast as the other way round.
_NUMBER = re.compile(r"\d(?<![\w.]\d)\d{0,4}")
_UNIT = re.compile(r"[- ]{0,2}(word|sent|para|page|line|item|char|point|bullet|min)")
_UNIT_CHARS = 16
_UNIT_TOKENS = {"word": 1.3, "char": 0.25, "line": 12.0, "sent": 25.0, "item": 25.0, "point": 30.0,
                "bullet": 30.0, "para": 100.0, "page": 500.0, "min": 180.0}  # fmt: skip


def matrix(requests: Sequence[Request], tokens: Sequence[list[bytes]] | None = None) -> NDArray[np.float32]:
    """Features of each request, float32 [n, len(NAMES)]; NaN where a request does not say.

    `tokens[i]` are the words of request i (`ngrams.words`), where they are at hand already.
    """
    if tokens is None:
        tokens = [words(head(request.prompt)) for request in requests]
    values: list[float] = []
    for request, found in zip(requests, tokens, strict=True):
        _surface(values, request.prompt, found)
        _context(values, request)
    # Packing is twice as fast as np.array on a list of Python numbers.
    packed = bytearray(struct.pack(f"{len(values)}f", *values))
    return np.frombuffer(packed, dtype=np.float32).reshape(len(requests), len(NAMES))


def with_sampling(features: NDArray[np.float32], requests: Sequence[Request]) -> NDArray[np.float32]:
    """`features` [n, len(NAMES)] with the sampling settings behind them, float32 [n, len(ALL)]."""
    asked = [(request.temperature, request.top_p) for request in requests]
    settings = np.array(asked, np.float64).reshape(len(requests), len(SAMPLING))  # None becomes NaN
    return np.concatenate([features, settings.astype(np.float32)], axis=1)


def _surface(values: list[float], prompt: str, found: list[bytes]) -> None:
    text = head(prompt)
    raw = text.encode("utf-8", "replace")
    size = len(raw) or 1
    count = text.count
    undigited = len(raw.translate(None, _DIGITS))
    values += (
        len(prompt), len(found), size / (len(found) or 1), prompt.count("\n"), count("?"),
        prompt.count("```"), count(":"), count(","), count('"'), count("."), count("/"),
        count("[") + count("{") + count("<"),
        1.0 - undigited / size, 1.0 - len(raw.translate(None, _UPPER)) / size,
        0.0 if text.isascii() else 1.0 - len(raw.translate(None, _HIGH)) / size,
        _ending(text), *(_number(text) if undigited < len(raw) else (MISSING, MISSING)),
    )  # fmt: skip
    flags = [0.0] * len(KEYWORDS)
    for word in _ALL_FLAGS.intersection(found):
        flags[_FLAGS[word]] = 1.0
    values += flags


def _ending(text: str) -> float:
    """How `text` ends, as a code: 0 empty, 1 sentence, 2 question, 3 colon, ... 9 mid-sentence."""
    last = text[-1:]
    if last.isspace():
        last = text.rstrip()[-1:]
    return ENDINGS.get(last, 9.0) if last else 0.0


def _number(text: str) -> tuple[float, float]:
    """The first number named, and the tokens its unit asks for ("200 words"); NaN where there is none."""
    match = _NUMBER.search(text)
    if match is None:
        return MISSING, MISSING
    number, end = float(match.group()), match.end()
    unit = _UNIT.match(text[end : end + _UNIT_CHARS].lower())
    return number, number * _UNIT_TOKENS[unit.group(1)] if unit else MISSING


def _context(values: list[float], request: Request) -> None:
    history = request.history
    values.append(MISSING if request.max_tokens is None else request.max_tokens)
    values.append(MISSING if history.turn is None else history.turn)
    if not (history.prompts or history.lengths or history.answer_tail or history.tokens):
        values += _NO_HISTORY
        return
    _answers(values, history.lengths[-SEEN_LENGTHS:])
    values.append(MISSING if history.tokens is None else history.tokens)
    _prompts(values, request.prompt, history)
    tail = history.answer_tail
    values += (_ending(tail), tail.count("```")) if tail else (MISSING, MISSING)
    values.append(_trend(history.lengths))


def _answers(values: list[float], lengths: tuple[int, ...]) -> None:
    """The number of earlier answers, the last three lengths, then mean, median, longest, shortest."""
    if not lengths:
        values += (0.0, *[MISSING] * 7)
        return
    ordered = sorted(lengths)
    n = len(ordered)
    values += (
        n, lengths[-1], lengths[-2] if n > 1 else MISSING, lengths[-3] if n > 2 else MISSING,
        sum(ordered) / n, (ordered[n // 2] + ordered[(n - 1) // 2]) / 2, ordered[-1], ordered[0],
    )  # fmt: skip


def _trend(lengths: tuple[int, ...]) -> float:
    """How much longer the last answer was than the one before it."""
    return lengths[-1] / (lengths[-2] + 1.0) if len(lengths) > 1 else MISSING


def _prompts(values: list[float], prompt: str, history: History) -> None:
    """The previous prompt's size, whether it is repeated, the earlier prompt most like this, its answer."""
    prompts = history.prompts
    if not prompts:
        values += [MISSING] * 4
        return
    own = set(prompt[:SEEN_CHARS].split())
    size = len(own)
    best, answer, back = 0.0, -1, 0
    for earlier in prompts[: -SEEN_PROMPTS - 1 : -1]:
        back -= 1
        other = earlier[:SEEN_CHARS].split()
        if own.isdisjoint(other):
            continue
        shared = len(own.intersection(other))
        share = shared / (size + len(other) - shared)
        if share > best:
            best, answer = share, back
    # Both end at the newest, and a history may keep more lengths than prompts. With fewer, some have none.
    paired = len(history.lengths) >= len(prompts)
    values += (len(prompts[-1]), prompts[-1] == prompt, best, history.lengths[answer] if paired else MISSING)
