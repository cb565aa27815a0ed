from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.data.load import read_examples
from mope.data.records import Example
from mope.data.threads import Turn, thread
from mope.types import History, Request


def row(turn: int, length: int, *, root: str = "r", part: int = 0, **more: Any) -> dict[str, Any]:
    return {"conv_root": root, "part": part, "turn": turn, "prompt": f"{root}{part}.{turn}",
            "response_tokens_llama2": length, **more}  # fmt: skip


def test_history_is_threaded_from_earlier_rows_in_any_order(write: Any) -> None:
    rows = [
        row(1, 20, prev_response_tail="...end of ten", context_tokens_cl100k=99),
        row(0, 50, part=1),
        row(0, 7, root="s"),
        row(0, 10),
    ]
    data = read_examples([write("t.parquet", rows)])
    second, later, other, first = (example.request.history for example in data.examples)
    assert first == History(turn=0)
    assert second == History(1, ("r0.0",), (10,), "...end of ten", 99)
    assert later == History(0, ("r0.0", "r0.1"), (10, 20))
    assert other == History(turn=0)
    assert data.groups == ["r", "r", "s", "r"]


def test_answers_to_the_same_turn_do_not_see_each_other(write: Any) -> None:
    rows = [row(0, 5), row(0, 6), row(1, 7)]
    histories = [e.request.history for e in read_examples([write("t.jsonl", rows)]).examples]
    assert [history.lengths for history in histories] == [(), (), (5,)]


def test_answers_of_another_model_are_another_conversation(write: Any) -> None:
    rows = [row(0, 5, model="a"), row(0, 6, model="b"), row(1, 7, model="b")]
    data = read_examples([write("t.jsonl", rows)])
    assert data.examples[2].request.history.lengths == (6,)
    assert set(data.groups) == {"r"}


def test_only_the_last_prompts_and_lengths_are_kept(write: Any) -> None:
    rows = [row(turn, turn) for turn in range(50)]
    last = read_examples([write("t.jsonl", rows)]).examples[-1].request.history
    assert last.prompts == tuple(f"r0.{turn}" for turn in range(41, 49))
    assert last.lengths == tuple(range(17, 49))


def test_the_tail_of_an_answer_is_known_to_the_next_turn(write: Any) -> None:
    rows = [
        {"conversation_id": 4, "turn": turn, "prompt": "p", "response": "x" * 200 + str(turn)}
        for turn in (0, 1)
    ]
    first, second = read_examples([write("t.jsonl", rows)]).examples
    assert first.request.history.answer_tail == ""
    assert second.request.history.answer_tail == "x" * 119 + "0"
    assert second.group == "4"


@pytest.mark.parametrize("missing", [{"turn": None}, {"conv_root": None}])
def test_a_row_without_its_place_is_alone(missing: dict[str, Any], write: Any) -> None:
    rows = [row(0, 5) | missing, row(1, 6), row(2, 7) | missing]
    data = read_examples([write("t.jsonl", rows)])
    assert [e.request.history.lengths for e in data.examples] == [(), (), ()]


def test_a_turn_that_is_no_number_is_refused(write: Any) -> None:
    data = read_examples([write("t.jsonl", [row(0, 5), row(0, 5) | {"turn": "x"}])])
    assert (len(data), data.refused) == (1, {"turn is not a number": 1})


TURNS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 4), st.integers(0, 9)), max_size=12
)


def turns_of(cells: list[tuple[str, int, int, int]]) -> list[Turn]:
    return [
        Turn(Example(Request(f"{part}.{turn}"), (100 * part + 10 * turn + length,), group), (part, turn))
        for group, part, turn, length in cells
    ]


@settings(deadline=None)
@given(TURNS)
def test_no_turn_sees_itself_or_the_future(cells: list[tuple[str, int, int, int]]) -> None:
    turns = turns_of(cells)
    for turn, example in zip(turns, thread(turns), strict=True):
        assert (example.request.prompt, example.lengths) == (
            turn.example.request.prompt,
            turn.example.lengths,
        )
        places = sorted({t.place for t in turns if t.example.group == example.group and t.place})
        earlier = [place for place in places if turn.place and place < turn.place]
        history = example.request.history
        assert history.prompts == tuple(f"{part}.{number}" for part, number in earlier)[-8:]
        assert [length // 10 for length in history.lengths] == [10 * p + t for p, t in earlier][-32:]


@settings(deadline=None)
@given(TURNS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    cells: list[tuple[str, int, int, int]], rng: random.Random
) -> None:
    shuffled = rng.sample(cells, len(cells))

    def told(cells: list[tuple[str, int, int, int]]) -> list[str]:
        return sorted(map(repr, thread(turns_of(cells))))

    assert told(shuffled) == told(cells)
