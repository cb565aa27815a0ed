from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.predictor.ngrams import FIRST_WORD, MAX_WORDS, SERVED_MODEL, bucket_ids, hashes, head, words
from mope.types import Request


def test_words_are_lower_case_without_punctuation():
    assert words("Hello, (World)! What's it?") == [b"hello", b"world", b"what", b"s", b"it"]


def test_text_without_spaces_is_cut_into_characters():
    assert words("\u4f60\u597d \u4e16\u754c" + "\u4f60" * 30)[:3] == [
        c.encode() for c in "\u4f60\u597d\u4e16"
    ]
    assert words("\u00fcber-uns") == ["\u00fcber-uns".encode()]


def test_hashes_are_the_same_on_every_machine():
    expected = [
        crc32(b"a"), crc32(b"b"), crc32(b"c"), crc32(b"ab"), crc32(b"bc"),
        crc32(b"a", FIRST_WORD), crc32(b"m", SERVED_MODEL),
    ]  # fmt: skip
    assert hashes([b"a", b"b", b"c"], "m") == expected
    ids, starts = bucket_ids([Request("a b"), Request("")], bits=15)
    assert ids.tolist() == [23017, 29626, 24363, 4521, 52]
    assert starts.tolist() == [0, 4, 5]


def test_long_texts_keep_their_first_and_last_words():
    many = [str(i).encode() for i in range(1000)]
    got = hashes(many)
    assert len(got) == 2 * MAX_WORDS
    assert got[0] == crc32(b"0")
    assert got[MAX_WORDS - 1] == crc32(b"999")


def test_head_bounds_what_is_read():
    assert head("short") == "short"
    long = "a" * 5000 + "z"
    assert head(long) == "a" * 512 + " " + "a" * 127 + "z"


def test_the_served_model_matters():
    plain, named = (bucket_ids([Request("hi", model=m)], 15)[0].tolist() for m in (None, "llama"))
    assert named[:-1] == plain


@pytest.mark.parametrize("bits", [1, 13, 15])
@given(prompts=st.lists(st.text(max_size=40) | st.just("\ud800"), max_size=5))
def test_ids_stay_in_range_and_every_request_has_some(bits, prompts):
    ids, starts = bucket_ids([Request(p) for p in prompts], bits)
    assert len(starts) == len(prompts) + 1
    assert (np.diff(starts) > 0).all()
    assert starts[-1] == len(ids)
    assert ((ids >= 0) & (ids < 2**bits)).all()
