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
COLUMNS = (
    "prompt", "messages", "conversations", "conversation", "conversation_id", "part", "turn", "response",
    "response_tokens", "response_tokens_llama2", "output_tokens_native", "usage", "request", "body", "cap",
    "model", "source", "max_tokens", "prompt_tokens", "context_tokens",
    "prev_response_tail", "prompt_id", "id",
)  # fmt: skip
MESSAGE = st.fixed_dictionaries({}, optional={
    "role": st.sampled_from(["user", "assistant", "system", "nobody"]) | ANY,
    "content": st.text(max_size=5) | ANY,
})  # fmt: skip
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.text(max_size=5), "response_tokens": st.integers(-1, 9), "turn": st.integers(-1, 3),
    "messages": st.lists(MESSAGE, max_size=4), "conversation": st.lists(MESSAGE, max_size=4),
    "usage": st.fixed_dictionaries({"completion_tokens": st.integers(0, 9) | ANY}),
}  # fmt: skip
ROW = st.fixed_dictionaries({}, optional={name: LIKELY.get(name, ANY) | ANY for name in COLUMNS}) | ANY


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


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, max_size=5))
def test_any_rows_in_json_lines(rows: list[Any]) -> None:
    data = read("x.jsonl", "\n".join(map(json.dumps, rows)).encode())
    # Whole conversations give several examples a row and are always estimated here.
    if data and not data.notes:
        assert len(data) + sum(data.refused.values()) == len(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, max_size=4))
def test_any_rows_in_a_json_array(rows: list[Any]) -> None:
    read("x.json", json.dumps(rows).encode())


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
