"""Each record of each format is a row of a part; what cannot be read is refused with what is there instead."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mope.bulk.shard import forecast_part
from mope.bulk.source import Source, open_source
from mope.errors import DataError
from mope.types import Request


def prompts_of(source: Source, **given: Any) -> list[Request | str]:
    """What becomes of every row: its request, or why there is none."""
    asked: list[Request] = []
    found: list[Request | str] = []
    for part in source.parts(range(max(1, -(-source.count() // source.size)))):
        shard = forecast_part(part, source.shape, lambda requests: asked.extend(requests) or {}, **given)
        waiting = iter(asked[len(asked) - len(shard.places) :])
        found += [error or next(waiting) for error in shard.errors]
    return found


CHAT = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]


def test_every_line_of_jsonl_is_a_row(tmp_path: Path):
    rows = [
        b'{"prompt": "one"}', b"", b"  ", b"{", b"[1]", b'"text"', b'{"prompt": "\xff"}', b'{"prompt": " "}', b"{}",
        b'{"prompt": "two", "max_tokens": -1}', b'{"prompt": 5}',
        json.dumps({"messages": CHAT}).encode(), json.dumps({"messages": CHAT[:2]}).encode(),
        json.dumps({"prompt": "\x01" * 9}).encode(), b'{"messages": null, "prompt": "three"}',
    ]  # fmt: skip
    for name, content in (("in.jsonl", b"\n".join(rows)), ("in.jsonl.gz", gzip.compress(b"\n".join(rows)))):
        (tmp_path / name).write_bytes(content)
        source = open_source(tmp_path / name, size=4)
        found = prompts_of(source)
        assert source.count() == len(found) == 13  # blank lines are no rows
        assert [r if isinstance(r, str) else r.prompt for r in found] == [
            "one", "not JSON", "row is not an object", "row is not an object", "not UTF-8", "empty prompt",
            "no prompt", "max_tokens is negative", "not text", "c", "a chat that ends with assistant",
            "prompt is binary", "three",
        ]  # fmt: skip


def test_every_row_of_csv(tmp_path: Path):
    (tmp_path / "in.csv").write_text('id,prompt\n1,"a\nb"\n2,c,d\n3\n4,"x ""y"""\n')
    source = open_source(tmp_path / "in.csv", size=2)
    found = [r if isinstance(r, str) else r.prompt for r in prompts_of(source)]
    assert found == ["a\nb", "row has more cells than columns", "no prompt", 'x "y"']
    assert [part.carried for part in source.parts([0, 1])] == [{"id": ["1", None]}, {"id": ["3", "4"]}]


def test_an_array_of_json(tmp_path: Path):
    for name in ("in.json", "in.jsonl"):
        (tmp_path / name).write_text('[{"prompt": "a"},\n 3, {"prompt": "b"}]')
        found = prompts_of(open_source(tmp_path / name))
        assert [r if isinstance(r, str) else r.prompt for r in found] == ["a", "row is not an object", "b"]


def test_what_a_row_tells_of_its_request_and_what_goes_before_it(tmp_path: Path):
    row = {"body": {"messages": CHAT, "model": "m", "max_tokens": 9}, "prompt_tokens": 7, "custom_id": "x"}
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    source = open_source(tmp_path / "in.jsonl")
    assert source.carry == ("custom_id",)
    (own,), (other,) = prompts_of(source), prompts_of(source, model="n", max_tokens=5)
    assert isinstance(own, Request)
    assert isinstance(other, Request)
    assert (own.prompt, own.model, own.max_tokens, own.prompt_tokens) == ("c", "m", 9, 7)
    assert own.history.prompts == ("a",)
    assert (other.model, other.max_tokens) == ("n", 5)


def test_a_prompt_comes_whole(tmp_path: Path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "a" * 50_000}))
    (request,) = prompts_of(open_source(tmp_path / "in.jsonl"))
    assert isinstance(request, Request)
    assert len(request.prompt) == 50_000


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(0, 70), group=st.integers(1, 40), size=st.integers(1, 20), data=st.data())
def test_parts_of_parquet_do_not_know_of_row_groups(
    rows: int, group: int, size: int, data: st.DataObject, tmp_path: Path
):
    table = pa.table({"prompt": [str(i) for i in range(rows)], "id": pa.array(range(rows), pa.int32())})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=group)
    source = open_source(tmp_path / "in.parquet", size=size)
    wanted = data.draw(st.sets(st.integers(0, max(0, -(-rows // size) - 1)), min_size=1))
    for number, part in zip(sorted(wanted), source.parts(wanted), strict=True):
        here = range(number * size, min(rows, (number + 1) * size))
        assert (part.number, part.first) == (number, number * size)
        assert [row["prompt"] for row in part.rows if not isinstance(row, str)] == [str(i) for i in here]
        ids = part.carried["id"]
        assert (ids if isinstance(ids, list) else ids.to_pylist()) == list(here)


def test_a_saved_dataset_is_read_with_all_its_splits(tmp_path: Path):
    import datasets

    parts = {"train": ["a", "b", "c"], "test": ["d", "e"]}
    saved = {name: datasets.Dataset.from_dict({"prompt": texts}) for name, texts in parts.items()}
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "saved"))
    source = open_source(tmp_path / "saved", size=2)
    found = [r if isinstance(r, str) else r.prompt for r in prompts_of(source)]
    assert (source.count(), found) == (5, ["a", "b", "c", "d", "e"])
    before = source.digest()
    saved["test"].save_to_disk(str(tmp_path / "saved"))
    assert source.digest() != before


def test_a_column_of_any_type_beside_the_prompt(tmp_path: Path):
    odd = pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"prompt": ["a", "b"], "odd": odd}), tmp_path / "in.parquet")
    part = next(open_source(tmp_path / "in.parquet", carry=["odd"]).parts([0]))
    assert part.carried["odd"].equals(odd)


def test_a_file_that_became_shorter(tmp_path: Path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n' * 5)
    source = open_source(tmp_path / "in.jsonl", size=2)
    with pytest.raises(DataError, match="ends before its part 3"):
        list(source.parts([0, 3]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no file"), ("in.txt", b"a", r"\.parquet, \.jsonl"), ("in.jsonl", b"", "no rows"),
        ("in.jsonl", b'{"text": "a"}', r"columns text.*--map prompt=COLUMN"),
        ("in.parquet", b"PAR1", "cannot be read"), ("in.jsonl.gz", b"no gzip", "cannot be read"),
        ("in.csv", b"prompt\n\xff", "cannot be read"),
        ("in.json", b'[{"prompt": "a"},', "cannot be read"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(name: str, content: bytes | None, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / name).count()


def test_columns_that_are_not_there(tmp_path: Path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "n": {"k": 1}}')
    with pytest.raises(DataError, match=r"no column 'm' in .* columns out of prompt, n"):
        open_source(tmp_path / "in.jsonl", carry=["m"])
    with pytest.raises(DataError, match="no column 'm'"):
        open_source(tmp_path / "in.jsonl", mapping={"prompt": "m"})
    with pytest.raises(DataError, match="field 'length'"):
        open_source(tmp_path / "in.jsonl", mapping={"length": "n"})
