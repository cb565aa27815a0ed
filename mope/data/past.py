"""What is known of a conversation so far, kept small."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from mope.chat import KEPT_LENGTHS as SEEN_LENGTHS
from mope.chat import KEPT_PROMPTS as SEEN_PROMPTS
from mope.chat import TAIL_CHARS
from mope.data.values import shorten
from mope.types import History


@dataclass
class Past:
    """Grows message by message; `history()` is what a request sent now would know."""

    turn: int = 0
    tokens: int = 0
    tail: str = ""
    prompts: deque[str] = field(default_factory=lambda: deque(maxlen=SEEN_PROMPTS))
    lengths: deque[int] = field(default_factory=lambda: deque(maxlen=SEEN_LENGTHS))

    def hear(self, role: str, text: str, tokens: int) -> None:
        """Take in one message of `tokens` tokens."""
        self.tokens += tokens
        if role == "user":
            self.turn += 1
            self.prompts.append(shorten(text))
        elif role == "assistant":
            self.lengths.append(tokens)
            self.tail = text[-TAIL_CHARS:]

    def history(self) -> History:
        """The last `SEEN_PROMPTS` prompts and `SEEN_LENGTHS` answer lengths, oldest first."""
        return History(self.turn, tuple(self.prompts), tuple(self.lengths), self.tail, self.tokens)
