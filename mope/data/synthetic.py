"""Made-up chats whose answer lengths can be learned: for tests, demos and tiny training runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from random import Random

from mope.data.past import Past
from mope.data.records import Example, LengthData
from mope.types import Request

# What is asked, and the tokens that an answer to it takes.
TASKS = {
    "Is it true what they say about": 12, "Name one fact about": 20, "Translate this sentence about": 25,
    "Define": 30, "Summarize": 90, "Explain": 180, "Compare two views of": 220, "List ten things about": 160,
    "Write a story about": 500, "Write an essay on": 600, "Write code that models": 350,
}  # fmt: skip
TOPICS = (
    "tides", "the printing press", "sorting algorithms", "honey bees", "black holes", "compound interest",
    "jazz", "volcanoes", "the Silk Road", "vaccines", "chess openings", "photosynthesis", "bridges", "dreams",
)  # fmt: skip
MANNERS = {"": 1.0, " in one sentence": 0.25, " briefly": 0.5, " in detail": 1.8, " step by step": 1.5}
FOLLOW_UPS = {"Thank you": 15, "Shorter please": 40, "Continue": 250, "Give an example": 120}
NOISE = 0.25
MOST_TURNS = 5


def synthetic(n: int, seed: int = 0) -> LengthData:
    """`n` turns of made-up conversations, the same for the same seed on every machine.

    The length follows the words of the prompt and a verbosity that is constant within a conversation, so
    earlier answers help to foretell later ones. The rest is log-normal noise of sigma `NOISE`.
    """
    return LengthData(list(islice(_turns(Random(seed), f"synthetic-{seed}"), n)))


def _turns(random: Random, name: str) -> Iterator[Example]:
    number = 0
    while True:
        yield from _conversation(random, f"{name}-{number}")
        number += 1


def _conversation(random: Random, group: str) -> Iterator[Example]:
    verbosity = math.exp(random.gauss(0.0, 0.4))
    past = Past()
    for turn in range(random.randint(1, MOST_TURNS)):
        prompt, base = _prompt(random, turn)
        length = max(1, round(base * verbosity * math.exp(random.gauss(0.0, NOISE))))
        yield Example(
            Request(prompt, history=past.history(), model="synthetic"), (length,), group, "synthetic"
        )
        past.hear("user", prompt, len(prompt.split()))
        past.hear("assistant", f"That is all I know of {prompt[:40]}.", length)


def _prompt(random: Random, turn: int) -> tuple[str, float]:
    if turn and random.random() < 0.3:
        prompt = random.choice(list(FOLLOW_UPS))
        return prompt, FOLLOW_UPS[prompt]
    task, manner = random.choice(list(TASKS)), random.choice(list(MANNERS))
    return f"{task} {random.choice(TOPICS)}{manner}", TASKS[task] * MANNERS[manner]
