from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.data.records import Example
from mope.data.split import part_of
from mope.inspect.repeats import Repeats, normalise
from mope.types import History, Request

TRAIN = next(f"g{n}" for n in range(100) if part_of(f"g{n}") == "train")
TEST = next(f"g{n}" for n in range(100) if part_of(f"g{n}") == "test")
CALIBRATION = next(f"g{n}" for n in range(100) if part_of(f"g{n}") == "calibration")


def add(repeats: Repeats, prompt: str, group: str, model: str = "m", before: str = "") -> None:
    history = History(prompts=(before,) if before else ())
    repeats.add(Example(Request(prompt, model=model, history=history), (1,), group))


def test_a_prompt_on_both_sides_is_a_leak() -> None:
    repeats = Repeats()
    for group in (TRAIN, CALIBRATION, TEST):
        add(repeats, "Hello, world", group)
    add(repeats, "hello world!", TEST)
    add(repeats, "another", TEST)
    found = repeats.to_dict()
    assert found["exact"] == {
        "prompts": 3, "repeated_rows": 2, "test_prompts": 3, "test_prompts_in_train": 1,
    }  # fmt: skip
    assert found["normalised"] == {
        "prompts": 2, "repeated_rows": 3, "test_prompts": 2, "test_prompts_in_train": 1,
    }  # fmt: skip
    assert found["leaked_prompts"] == ["Hello, world"]


def test_calibration_and_test_alone_are_no_leak() -> None:
    repeats = Repeats()
    add(repeats, "p", CALIBRATION)
    add(repeats, "p", TEST)
    assert repeats.exact.row()["test_prompts_in_train"] == 0


def test_another_models_answer_is_no_repeat_but_may_leak() -> None:
    repeats = Repeats()
    add(repeats, "p", TRAIN, "a")
    add(repeats, "p", TEST, "b")
    assert repeats.exact.row()["repeated_rows"] == 0
    assert repeats.exact.row()["test_prompts_in_train"] == 1


def test_the_same_words_after_another_prompt_are_another_prompt() -> None:
    repeats = Repeats()
    add(repeats, "continue", TRAIN, before="a story")
    add(repeats, "continue", TEST, before="an essay")
    add(repeats, "continue", TEST)
    assert repeats.exact.row()["prompts"] == 3
    assert repeats.exact.row()["test_prompts_in_train"] == 0


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from((TRAIN, TEST))), max_size=12), st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[str, str]], rng) -> None:  # type: ignore[no-untyped-def]
    counts = []
    for _ in range(2):
        repeats = Repeats()
        for row in rows:
            add(repeats, *row)
        counts.append((repeats.exact.row(), repeats.normalised.row()))
        rng.shuffle(rows)
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A  b\n", "a b", True),
        ("What?", "what", True),
        ("a1", "a 1", False),
        ("\uff21b", "ab", True),
        ("+", "-", False),
    ],
)
def test_what_normalising_makes_the_same(one: str, other: str, same: bool) -> None:
    assert (normalise(one) == normalise(other)) is same
