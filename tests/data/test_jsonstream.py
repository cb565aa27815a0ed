from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.data import jsonstream

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=6), st.integers(1, 9), st.sampled_from([None, 1]))
def test_an_array_is_read_whole_whatever_the_chunk(items: list[Any], chunk: int, indent: int | None) -> None:
    text = json.dumps(items, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonstream, "CHUNK", chunk)
        assert list(jsonstream.values(io.StringIO(text))) == items


@settings(deadline=None)
@given(st.lists(VALUES.filter(lambda v: not isinstance(v, list)), max_size=6), st.integers(1, 9))
def test_values_one_after_another_are_read_whatever_the_chunk(items: list[Any], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonstream, "CHUNK", chunk)
        assert list(jsonstream.values(io.StringIO("\n".join(map(json.dumps, items))))) == items


@pytest.mark.parametrize("text", ["[1, 2", "[1, x]", '{"a": ', "[1] 2", '["a'])
def test_broken_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        list(jsonstream.values(io.StringIO(text)))


def test_an_array_is_not_held_in_memory() -> None:
    class Endless(io.StringIO):
        asked = 0

        def read(self, size: int | None = -1) -> str:
            self.asked += 1
            return "[" + "1," * 50 if self.asked == 1 else "2," * 50

    found = jsonstream.values(Endless())
    assert [next(found) for _ in range(60)] == [1] * 50 + [2] * 10
