"""Turns of conversations in the rows of a table: each learns what the rows before it tell, and no more."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mope.data.past import Past
from mope.data.records import Example

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Turn:
    """An example, its (part, turn) in the conversation (None where unknown), and the end of its answer."""

    example: Example
    place: Place | None
    tail: str = ""

    @property
    def order(self) -> tuple[object, ...]:
        """By place, then by content: rows of equal place come in one order however the file is sorted."""
        return self.place, self.example.request.prompt, self.example.lengths, self.tail


def thread(turns: Sequence[Turn]) -> Iterator[Example]:
    """The examples in the order given, with prompts and lengths of the strictly earlier turns of each.

    Answers of different models or sources are different conversations. Of rows with equal (part, turn),
    which are several answers to one turn, only the first in `Turn.order` is seen by later turns.
    """
    conversations: dict[tuple[str, str, str | None], list[int]] = defaultdict(list)
    for index, turn in enumerate(turns):
        if turn.place is not None:
            example = turn.example
            conversations[example.group, example.source, example.request.model].append(index)
    examples = [turn.example for turn in turns]
    for indices in conversations.values():
        for index, example in _told_past(turns, sorted(indices, key=lambda i: turns[i].order)):
            examples[index] = example
    yield from examples


def _told_past(turns: Sequence[Turn], indices: list[int]) -> Iterator[tuple[int, Example]]:
    past = Past()
    for _, same in itertools.groupby(indices, key=lambda i: turns[i].place):
        place = list(same)
        for index in place:
            yield index, _with_past(turns[index].example, past)
        first = turns[place[0]]
        past.hear("user", first.example.request.prompt, 0)
        past.hear("assistant", first.tail, sorted(first.example.lengths)[len(first.example.lengths) // 2])


def _with_past(example: Example, past: Past) -> Example:
    own = example.request.history
    seen = replace(
        own,
        prompts=tuple(past.prompts),
        lengths=tuple(past.lengths),
        answer_tail=own.answer_tail or past.tail,
    )
    return replace(example, request=replace(example.request, history=seen))
