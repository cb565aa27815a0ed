"""Whatever is in a file, reading it gives examples or a `DataError`: no other exception, no lost row."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.data.load import read_examples
from mope.data.records import LengthData
from mope.errors import DataError

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "usage", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
# A usable row of each shape: what is around it may be anything.
GOOD: list[dict[str, Any]] = [
    {"prompt": "p", "response_tokens": 1},
    {"prompt": "p", "response": "r"},
    {"prompt": "p", "output_tokens_native": [1, 2], "prompt_id": "i"},
    {"prompt": "p", "response_tokens_llama2": 1, "conversation_id": "c", "part": 0, "turn": 0},
    {"messages": CHAT[:1], "usage": {"completion_tokens": 1}},
    {"request": {"messages": CHAT[:1]}, "response": {"usage": {"completion_tokens": 1}}},
    {"conversation": CHAT, "conversation_id": "c"},
    {"conversations": CHAT, "id": "c"},
]
EXTRA = ("cap", "model", "source", "max_tokens", "prompt_tokens", "context_tokens", "prev_response_tail")
COUNT = st.integers(-1, 9) | ANY
TEXT = st.text(max_size=5) | ANY
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "nobody"]), "content": TEXT}
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("prompt", "response"), TEXT),
    **dict.fromkeys(("response_tokens", "response_tokens_llama2", "part", "turn"), COUNT),
    **dict.fromkeys(("messages", "conversation", "conversations"), st.lists(MESSAGE, max_size=4)),
    "conversation_id": st.sampled_from("cd") | ANY,
    "usage": st.fixed_dictionaries({"completion_tokens": COUNT}),
}


def around(good: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    """Up to six rows with the columns of `good`, itself first."""
    row = st.fixed_dictionaries(
        {name: LIKELY.get(name, ANY) for name in good}, optional=dict.fromkeys(EXTRA, COUNT | TEXT)
    )
    return st.lists(row | row | ANY, max_size=5).map(lambda rows: [good, *rows])


ROWS = st.sampled_from(GOOD).flatmap(around)


def read(name: str, content: bytes) -> LengthData | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            data = read_examples([path])
        except DataError:
            return None
        assert data.digest()
        return data


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_any_rows_around_a_good_one(rows: list[Any]) -> None:
    data = read("x.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert data is not None
    # A whole conversation gives several examples, or a reason for each of its messages.
    if not {"conversation", "conversations"} & rows[0].keys():
        assert len(data) + sum(data.refused.values()) == len(rows)
    array = read("x.json", json.dumps(rows).encode())
    assert array is not None
    assert (array.digest(), array.refused) == (data.digest(), data.refused)


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY | st.dictionaries(st.sampled_from([*LIKELY, *EXTRA]), ANY), max_size=5))
def test_any_rows_at_all(rows: list[Any]) -> None:
    read("x.jsonl", "\n".join(map(json.dumps, rows)).encode())


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b'{"prompt":"p","response_tokens":1}\n', b"[", b"\xef\xbb\xbf"]),
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz"])
def test_any_bytes_as_json(suffix: str, noise: bytes, start: bytes) -> None:
    read("x" + suffix, start + noise)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"", b"prompt,response_tokens\np,1\n", b'prompt,turn\n"']))
def test_any_bytes_as_csv(noise: bytes, start: bytes) -> None:
    read("x.csv", start + noise)


def parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    rows = [{"prompt": f"p{i}", "usage": {"completion_tokens": i}, "model": "m"} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_as_parquet(noise: bytes) -> None:
    read("x.parquet", noise)
    read("x.parquet", b"PAR1" + noise + b"PAR1")


def test_a_parquet_file_cut_short_anywhere() -> None:
    whole = parquet()
    for size in range(0, len(whole), 97):
        assert read("x.parquet", whole[:size]) is None
    data = read("x.parquet", whole)
    assert data is not None
    assert len(data) == 20


def test_a_parquet_file_with_one_byte_changed() -> None:
    whole = parquet()
    for at in range(4, len(whole), 23):
        read("x.parquet", whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])


def test_rows_nested_without_end() -> None:
    deep = '{"prompt": ' + "[" * 900 + "]" * 900 + ', "response_tokens": 1}\n'
    assert read("x.jsonl", deep.encode()) is None
    deeper = '{"prompt": ' + "[" * 200_000 + "\n"
    data = read("x.jsonl", (deeper + '{"prompt": "p", "response_tokens": 1}\n').encode())
    assert data is not None
    assert data.refused == {"not JSON": 1}
    assert read("x.json", b"[" * 200_000) is None


def test_a_whole_number_of_many_digits() -> None:
    data = read(
        "x.jsonl",
        b'{"prompt":"p","response_tokens":' + b"9" * 5000 + b'}\n{"prompt":"p","response_tokens":1}',
    )
    assert data is not None
    assert len(data) == 1
