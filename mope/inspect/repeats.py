"""Prompts that come more than once, and those that stand on both sides of the split.

A prompt is known by 8 bytes of its hash: about 200 bytes of memory for each one that differs, whatever its size.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field

from mope.data.records import Example
from mope.data.split import PARTS, part_of

SHOWN = 5
_TRAIN, _TEST = 1 << PARTS.index("train"), 1 << PARTS.index("test")
_NO_WORD = re.compile(r"[\W_]+")


@dataclass
class Seen:
    """Prompts by one way of calling two the same."""

    parts: dict[int, int] = field(default_factory=dict)  # prompt -> a bit for each part it stands in
    rows: dict[int, int] = field(default_factory=dict)  # prompt and model -> rows, where more than one
    models: set[int] = field(default_factory=set)

    def add(self, prompt: int, model: str, part: int) -> None:
        """Count one row."""
        self.parts[prompt] = self.parts.get(prompt, 0) | part
        pair = hash((prompt, model))
        if pair in self.models:
            self.rows[pair] = self.rows.get(pair, 1) + 1
        self.models.add(pair)

    def row(self) -> dict[str, int]:
        """Duplicates and leaks, counted."""
        both = _TRAIN | _TEST
        return {
            "prompts": len(self.parts),
            "repeated_rows": sum(self.rows.values()) - len(self.rows),
            "test_prompts": sum(bool(parts & _TEST) for parts in self.parts.values()),
            "test_prompts_in_train": sum(parts & both == both for parts in self.parts.values()),
        }


@dataclass
class Repeats:
    """Rows whose prompt (after the same earlier prompt) was there before: to the letter, and normalised."""

    exact: Seen = field(default_factory=Seen)
    normalised: Seen = field(default_factory=Seen)
    leaked: dict[int, str] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        """Count one example."""
        request = example.request
        before = request.history.prompts[-1] if request.history.prompts else ""
        part, model = 1 << PARTS.index(part_of(example.group)), request.model or ""
        self.exact.add(_hash(f"{before}\x00{request.prompt}"), model, part)
        plain = _hash(f"{normalise(before)}\x00{normalise(request.prompt)}")
        self.normalised.add(plain, model, part)
        if len(self.leaked) < SHOWN and self.normalised.parts[plain] & (_TRAIN | _TEST) == _TRAIN | _TEST:
            self.leaked.setdefault(plain, request.prompt)

    def to_dict(self) -> dict[str, object]:
        """Counts by either way, and some of the leaked prompts."""
        return {
            "exact": self.exact.row(),
            "normalised": self.normalised.row(),
            "leaked_prompts": list(self.leaked.values()),
        }


def normalise(prompt: str) -> str:
    """Letters and digits alone, in lower case and compatible form, words apart by one space."""
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", prompt).casefold()).strip() or prompt


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
