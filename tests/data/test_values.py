from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.data.values import Refused, clean, count_of, counts_of, label_of, prompt_of, shorten, text_of

JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("value", "count"),
    [(0, 0), (7, 7), (7.0, 7), ("7", 7), (" 7.0 ", 7), ("", None), (None, None), (float("nan"), None)],
)
def test_counts(value: Any, count: int | None) -> None:
    found = count_of(value, "length")
    assert found == count
    assert found is None or type(found) is int


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-1, "length is negative"), ("-3", "length is negative"), (1.5, "length is not a whole number"),
        (True, "length is not a number"), ("seven", "length is not a number"),
        ([1], "length is not a number"),
        (float("inf"), "length is not a number"), ("1e999", "length is not a number"),
        (10**40, "length is too large"), ({}, "length is not a number"),
    ],
)  # fmt: skip
def test_what_is_no_count_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(Refused) as why:
        count_of(value, "length")
    assert why.value.reason == reason


@pytest.mark.parametrize(
    ("value", "counts"), [(3, (3,)), ([3, 1], (3, 1)), ("[3, 1]", (3, 1)), ([3, None], (3,)), ("3", (3,))]
)
def test_several_counts(value: Any, counts: tuple[int, ...]) -> None:
    assert counts_of(value, "length") == counts


@pytest.mark.parametrize(
    ("value", "reason"),
    [([], "no length"), (None, "no length"),
     ([1, -1], "length is negative"), ("[1,", "length is not a number")],
)  # fmt: skip
def test_a_list_without_counts_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(Refused) as why:
        counts_of(value, "length")
    assert why.value.reason == reason


def test_nul_and_surrogates_are_replaced_and_control_characters_stay() -> None:
    assert clean("a\x00b\ud800c\x07\t\x1b") == "a\ufffdb\ufffdc\x07\t\x1b"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hi", "hi"), (None, None), ([], None), ({}, None), ({"content": "a"}, "a"),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}], "ab"),
        ([{"message": {"role": "assistant", "content": "x"}}], "x"), ([{"text": "done"}], "done"),
    ],
)  # fmt: skip
def test_text_in_the_forms_of_chat_logs(value: Any, text: str | None) -> None:
    assert text_of(value) == text


def test_text_nested_without_end_is_refused() -> None:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    with pytest.raises(Refused):
        text_of(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no prompt"),
        ("", "empty prompt"),
        (" \n\t", "empty prompt"),
        (5, "not text"),
        (b"x", "not text"),
    ],
)
def test_prompts_with_nothing_in_them_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(Refused) as why:
        prompt_of(value)
    assert why.value.reason == reason


@pytest.mark.parametrize(
    ("value", "label"),
    [("a", "a"), (3, "3"), (3.0, "3"), (None, ""), (float("nan"), ""), ([1], ""), ({}, "")],
)
def test_labels(value: Any, label: str) -> None:
    assert label_of(value) == label


def test_long_text_keeps_head_and_tail() -> None:
    text = "h" * 4000 + "m" * 500 + "t" * 2000
    assert shorten(text) == "h" * 4000 + "t" * 2000
    assert shorten(text[:6000]) == text[:6000]


@settings(deadline=None)
@given(JSONISH)
def test_any_cell_is_read_or_refused(value: Any) -> None:
    for read in (text_of, prompt_of, lambda v: counts_of(v, "length"), lambda v: count_of(v, "cap")):
        with suppress(Refused):
            assert isinstance(read(value), str | int | tuple | None)
    label_of(value).encode()
