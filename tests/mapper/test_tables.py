from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.errors import DataError
from mope.mapper.points import DecodePoints, LayerPoints, LinkPoints, PrefillPoints, RequestPoints, StepPoints
from mope.mapper.tables import read_overhead, read_points

TABLES = Path(__file__).parent / "tables"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_vidur_layers_are_summed_and_told_apart_by_gpus() -> None:
    [one] = read_points(TABLES / "vidur_layers.csv", tp=1)
    [two] = read_points(TABLES / "vidur_layers.csv", tp=2)
    assert isinstance(one, LayerPoints)
    assert isinstance(two, LayerPoints)
    # The first row of 4,096 tokens on one GPU: medians of nine operations, ms.
    parts = 0.105 + 1.911 + 0.149 + 0.611 + 0.104 + 3.3655 + 0.266 + 1.604 + 0.055
    assert one.seconds[one.tokens == 4096][0] == pytest.approx(parts * 1e-3)
    assert two.seconds.max() < 0.6 * one.seconds.max()


def test_vidur_attention_is_split_by_kind() -> None:
    decode, prefill = read_points(TABLES / "vidur_attention.csv", tp=2)
    assert isinstance(decode, DecodePoints)
    assert isinstance(prefill, PrefillPoints)
    assert set(decode.batch) == {1, 8, 64}
    assert set(prefill.tokens) == {64, 512, 1024}
    at = (decode.batch == 8) & (decode.context == 2048)
    assert decode.seconds[at] == pytest.approx(46e-6)


def test_the_other_forms() -> None:
    [link] = read_points(TABLES / "vidur_network.csv", tp=2)
    [dense] = read_points(TABLES / "sim_dense.csv")
    decode, prefill = read_points(TABLES / "sim_attention.csv")
    [log] = read_points(TABLES / "vllm_requests.jsonl")
    assert isinstance(link, LinkPoints)
    assert isinstance(dense, LayerPoints)
    assert list(dense.tokens) == [2**i for i in range(12)]
    # One token: seven parts, the norm twice, embedding and final norm left out.
    parts = 2.592 + 126.766 + 247.292 + 2 * 1.85083 + 38.1313 + 54.898 + 2.17567
    assert dense.seconds[0] == pytest.approx(parts * 1e-6)
    assert isinstance(decode, DecodePoints)
    assert isinstance(prefill, PrefillPoints)
    assert isinstance(log, RequestPoints)
    assert log.output_tokens[0] == 531
    sequences, time = read_overhead(TABLES / "vidur_cpu.csv", "Llama-2-7b-hf")
    assert sequences[0] == 8
    assert time[0] == pytest.approx(1.1731e-3, rel=1e-3)


def test_kernels_of_one_head_count_from_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {
        "op_name": "generation_attention", "batch_size": 4, "isl": 1, "step": 99, "num_heads": 8, "latency": 0.5,
        "num_key_value_heads": 8, "head_dim": 128, "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16",
    }  # fmt: skip
    rows = [row, row | {"num_heads": 16}, row | {"kv_cache_dtype": "fp8"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    [found] = read_points(tmp_path / "t.parquet", heads=8, kv_heads=8)
    assert isinstance(found, DecodePoints)
    assert (list(found.batch), list(found.context), list(found.seconds)) == ([4], [100], [0.0005])
    with pytest.raises(DataError, match="no rows for tensor parallel 1 and the model's heads"):
        read_points(tmp_path / "t.parquet", heads=3, kv_heads=3)


def test_vtc_logs_and_steps(tmp_path: Path) -> None:
    row = {
        "prompt_len": 10,
        "output_len": 3,
        "req_time": 1.0,
        "first_token_latency": 0.5,
        "request_latency": 2.0,
    }
    log = write(tmp_path / "log.json", json.dumps({"config": {}, "responses": [row]}))
    [found] = read_points(log)
    assert isinstance(found, RequestPoints)
    assert (found.first[0], found.last[0]) == (1.5, 3.0)
    packed = tmp_path / "steps.csv.gz"
    packed.write_bytes(gzip.compress(b"batch,context,tokens,seconds\n2,30,0,0.5\n"))
    [steps] = read_points(packed)
    assert isinstance(steps, StepPoints)
    assert steps.seconds[0] == 0.5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("batch,context,seconds\n1,10,0\n", r"row 1, column seconds: 0; expected: a time above 0"),
        ("batch,context,seconds\n1,10,1\n1,nan,1\n", r"row 2, column context: nan"),
        ("batch,context,seconds\n1,-10,1\n", r"row 1, column context: -10"),
        ("batch,context,seconds\n1,ten,1\n", r"row 1, column context: 'ten'; expected: a number"),
        ("batch,context,seconds\n1,10,1e9\n", r"column seconds"),
        ("batch,context,seconds\n", "no rows"),
        ("", "no rows"),
        ("a,b\n1,2\n", "columns a, b; expected: one of these sets"),
        ('{"a": 1}\n[1]\n', "one JSON object a line"),
        ('{"a": 1\n', "CSV, JSON lines or Parquet"),
    ],
)
def test_bad_tables_name_row_column_and_rule(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_points(write(tmp_path / "t.csv", text))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz", "missing.csv"])
def test_a_file_that_is_not_what_it_says(tmp_path: Path, name: str) -> None:
    if not name.startswith("missing"):
        (tmp_path / name).write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(DataError):
        read_points(tmp_path / name)


@settings(max_examples=60)
@given(st.binary(max_size=120))
def test_no_bytes_make_a_traceback(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "t.csv"
    path.write_bytes(raw)
    with pytest.raises(DataError):
        read_points(path)


def test_a_log_out_of_order_is_refused(tmp_path: Path) -> None:
    row = {
        "input_toks": 1,
        "output_toks": 1,
        "scheduled_ts": 5.0,
        "first_token_ts": 4.0,
        "last_token_ts": 6.0,
    }
    with pytest.raises(DataError, match="row 1: a first token before the start"):
        read_points(write(tmp_path / "l.jsonl", json.dumps(row) + "\n"))
