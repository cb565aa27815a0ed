import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.predictor.features import NAMES, SURFACE, matrix
from mope.types import History, Request


def named(prompt: str, history: History | None = None, **fields: int) -> dict[str, float]:
    row = matrix([Request(prompt, history=history or History(), **fields)])[0]
    return dict(zip(NAMES, row.tolist(), strict=True))


def test_names_are_unique_and_start_with_the_surface():
    assert len(set(NAMES)) == len(NAMES)
    assert NAMES[: len(SURFACE)] == SURFACE


def test_no_requests():
    assert matrix([]).shape == (0, len(NAMES))
    assert matrix([]).dtype == np.float32


def test_surface_of_a_prompt():
    got = named('Write 200 WORDS, "now":\nOK?')
    expected = {
        "chars": 27, "words": 5, "lines": 1, "questions": 1, "colons": 1, "commas": 1, "quotes": 2,
        "periods": 0, "fences": 0, "digit_share": 3 / 27, "upper_share": 8 / 27, "non_ascii_share": 0,
        "ends_in": 2, "first_number": 200, "asked_tokens": 260, "says_write": 1, "says_ok": 1, "says_long": 1,
        "says_what": 0,
    }  # fmt: skip
    assert {name: got[name] for name in expected} == pytest.approx(expected)


def test_flags_need_whole_words():
    assert named("showcase the encoder")["says_how"] == 0
    assert named("How?")["says_how"] == 1


def test_non_ascii_share_counts_bytes():
    assert named("aé")["non_ascii_share"] == pytest.approx(2 / 3)


def test_without_history_the_context_is_missing():
    got = named("hello", History(turn=3), max_tokens=50)
    assert (got["turn"], got["max_tokens"]) == (3, 50)
    assert all(math.isnan(got[name]) for name in NAMES[len(SURFACE) + 2 :])
    assert math.isnan(named("hello")["turn"])
    assert math.isnan(named("hello")["max_tokens"])


def test_earlier_answers():
    got = named("next", History(turn=3, prompts=("a", "b", "cc"), lengths=(10, 50, 30), tokens=99))
    expected = {
        "answers": 3, "last_answer": 30, "second_last_answer": 50, "third_last_answer": 10, "mean_answer": 30,
        "median_answer": 30, "longest_answer": 50, "shortest_answer": 10, "answer_trend": 30 / 51,
        "context_tokens": 99, "previous_chars": 2, "repeats_previous": 0,
    }  # fmt: skip
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert math.isnan(got["tail_ends_in"])


def test_an_even_number_of_answers_has_a_median_between_them():
    got = named("next", History(prompts=("a", "b"), lengths=(10, 40)))
    assert got["median_answer"] == 25
    assert math.isnan(got["third_last_answer"])


def test_history_without_answers_counts_none():
    got = named("next", History(tokens=5))
    assert got["answers"] == 0
    assert math.isnan(got["last_answer"])
    assert math.isnan(got["similarity"])


def test_most_similar_earlier_prompt_lends_its_answer():
    history = History(prompts=("tell me of red wine", "why", "sum this up"), lengths=(70, 5, 9))
    got = named("tell me of white wine", history)
    assert got["similarity"] == pytest.approx(4 / 6)
    assert got["similar_answer"] == 70


def test_latest_of_equally_similar_prompts_counts():
    assert named("go", History(prompts=("go", "go"), lengths=(1, 2)))["similar_answer"] == 2
    assert named("go", History(prompts=("x", "go"), lengths=(1, 2)))["repeats_previous"] == 1


def test_a_history_may_keep_more_answers_than_prompts():
    assert named("go", History(prompts=("go", "x"), lengths=(1, 2, 3)))["similar_answer"] == 2


def test_only_the_latest_answers_count():
    got = named("go", History(lengths=(10**6, *[5] * 32)))
    assert (got["answers"], got["longest_answer"]) == (32, 5)


def test_answers_that_cannot_be_paired_with_prompts_are_not():
    got = named("go", History(prompts=("go", "stop"), lengths=(4,)))
    assert got["similarity"] == 1
    assert math.isnan(got["similar_answer"])


@pytest.mark.parametrize(
    ("tail", "code"),
    [("done.", 1), ("done! \n", 1), ("ready?", 2), ("namely:", 3), ("a,", 4), ("x\n```", 5), ("and the", 9)],
)
def test_how_the_last_answer_ends(tail, code):
    got = named("go on", History(answer_tail=tail))
    assert got["tail_ends_in"] == code
    assert got["tail_fences"] == tail.count("```")


def test_the_middle_of_a_long_prompt_is_not_read():
    one, other = "word " * 2000, "word " * 500 + "?:,.9Z[" + "\u4e2d" * 3 + "word " * 1498
    assert len(one) == len(other)
    assert matrix([Request(one)]).tobytes() == matrix([Request(other)]).tobytes()


histories = st.builds(
    History,
    turn=st.none() | st.integers(0, 10**6),
    prompts=st.lists(st.text(max_size=30), max_size=12).map(tuple),
    lengths=st.lists(st.integers(0, 10**6), max_size=40).map(tuple),
    answer_tail=st.text(max_size=20),
    tokens=st.none() | st.integers(0, 10**9),
)
requests = st.builds(
    Request,
    st.text() | st.text("\ud800 a`é中\n?", max_size=50),
    history=histories,
    max_tokens=st.none() | st.integers(0, 10**9),
)


@given(st.lists(requests, max_size=4))
def test_any_request_has_finite_features_of_its_own(batch):
    got = matrix(batch)
    assert got.shape == (len(batch), len(NAMES))
    assert not np.isinf(got).any()
    assert not np.isnan(got[:, : SURFACE.index("first_number")]).any()
    for row, request in zip(got, batch, strict=True):
        assert row.tobytes() == matrix([request])[0].tobytes()
        alone = matrix([Request(request.prompt)])[0]
        assert row[: len(SURFACE)].tobytes() == alone[: len(SURFACE)].tobytes()
