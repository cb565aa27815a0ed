"""Reads measured tables and logs; what a file holds is seen from its columns.

| form | columns |
|---|---|
| Vidur, layers | time_stats.OP.median (ms), num_tokens, num_tensor_parallel_work(ers) |
| Vidur, attention | time_stats.attn_{prefill,decode}.median (ms), batch_size, prefill_chunk_size, kv_cache_size |
| Vidur, network | time_stats.all_reduce.median (ms), num_workers, size (bytes) |
| Vidur, CPU | schedule_median, sampler_e2e_median, ... (ms), model_name, batch_size |
| AIConfigurator, attention (Parquet) | op_name, batch_size, isl, step, num_heads, num_key_value_heads, latency (ms) |
| LLMServingSim, layers | layer, tokens, time_us |
| LLMServingSim, attention | prefill_chunk, kv_prefill, n_decode, kv_decode, time_us |
| steps of an engine | batch, context, seconds, and tokens (prompt tokens in the step) where prompts are read |
| VTC, requests (JSON lines) | prompt_len, output_len, req_time, first_token_latency, request_latency (s) |
| vLLM, requests (JSON lines) | input_toks, output_toks, scheduled_ts, first_token_ts, last_token_ts (s) |
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mope.errors import DataError
from mope.mapper.numbers import Floats
from mope.mapper.points import (
    DecodePoints,
    LayerPoints,
    LinkPoints,
    Points,
    PrefillPoints,
    RequestPoints,
    StepPoints,
    column,
    seconds,
)

Rows = list[dict[str, Any]]
MS = 1e-3
NORMS = ("input_layernorm", "post_attention_layernorm", "add")
LAYER_OPS = (
    *NORMS,
    "attn_pre_proj",
    "attn_rope",
    "attn_post_proj",
    "mlp_up_proj",
    "mlp_act",
    "mlp_down_proj",
)
LAYER_PARTS = {"layernorm": 2} | dict.fromkeys(
    ("qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj"), 1
)
US = 1e-6
CPU_PARTS = ("schedule", "sampler_e2e", "prepare_inputs_e2e", "process_model_outputs")
WORKERS = ("num_tensor_parallel_workers", "num_tensor_parallel_work", "num_workers")


def read_rows(path: str | Path) -> Rows:
    """The rows of a CSV, JSON lines (each also gzipped) or Parquet file.

    Raises `DataError` for a file that cannot be read or holds no rows.
    """
    path = Path(path)
    try:
        rows = _parquet(path) if path.suffix == ".parquet" else _text(path)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {error}", "a CSV, JSON lines or Parquet table") from None
    if not rows:
        raise DataError(f"{path}: no rows", "a table with a header and at least one row")
    return rows


def _text(path: Path) -> Rows:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    if text.lstrip()[:1] == "{":
        return _records(text, path)
    return list(csv.DictReader(io.StringIO(text)))


def _records(text: str, path: Path) -> Rows:
    """JSON lines, or one document with a list `responses`, as VTC's runs are kept."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        found = [json.loads(line) for line in lines]
    except json.JSONDecodeError:
        found = [json.loads(text)]
    if len(found) == 1 and isinstance(found[0].get("responses"), list):
        found = found[0]["responses"]
    if not all(isinstance(row, dict) for row in found):
        raise DataError(f"{path}: a line that is no object", "one JSON object a line")
    return found


def _parquet(path: Path) -> Rows:
    from mope.extras import require

    require("data", "reading Parquet")
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        return pyarrow.parquet.read_table(path).to_pylist()  # type: ignore[no-any-return]
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: {error}", "a Parquet file") from None


def read_points(
    path: str | Path, *, tp: int = 1, heads: int | None = None, kv_heads: int | None = None
) -> list[Points]:
    """What a table holds for `tp` GPUs; of a table over many head counts, those of one GPU.

    Raises `DataError` where the columns fit no known form, no row fits the selection, or a value breaks a rule.
    """
    rows, origin = read_rows(path), str(path)
    names = set(rows[0])
    for needed, read in _FORMS:
        if needed <= names:
            return _non_empty(read(rows, origin, tp, heads, kv_heads), origin, tp)
    known = "; ".join(", ".join(sorted(needed)) for needed, _ in _FORMS)
    raise DataError(f"{origin}: columns {', '.join(sorted(names)[:12])}", f"one of these sets: {known}")


def _non_empty(found: list[Points], origin: str, tp: int) -> list[Points]:
    if not found:
        raise DataError(f"{origin}: no rows for tensor parallel {tp} and the model's heads", "some")
    return found


def _at(rows: Rows, tp: int) -> Rows:
    """The rows measured on `tp` GPUs; all where the table does not say."""
    name = next((name for name in WORKERS if name in rows[0]), None)
    return rows if name is None else [row for row in rows if _whole(row[name]) == tp]


def _whole(value: object) -> int | None:
    try:
        return int(float(str(value)))
    except ValueError:
        return None


def _layers(rows: Rows, origin: str, tp: int, *_: object) -> list[Points]:
    rows = _at(rows, tp)
    if not rows:
        return []
    total = np.zeros(len(rows))
    for name in (f"time_stats.{op}.median" for op in LAYER_OPS):
        if name in rows[0]:
            total += column(rows, name, origin)
    time = seconds(total, MS, "sum of time_stats.*.median", origin)
    return [LayerPoints(column(rows, "num_tokens", origin, 1), time)]


def _vidur_attention(rows: Rows, origin: str, tp: int, *_: object) -> list[Points]:
    rows = _at(rows, tp)
    found: list[Points] = []
    for flag, part in (("false", "decode"), ("true", "prefill")):
        name = f"time_stats.attn_{part}.median"
        kept = [row for row in rows if str(row["is_prefill"]).lower() == flag]
        if kept:
            sizes = (column(kept, "batch_size", origin, 1), column(kept, "kv_cache_size", origin))
            time = seconds(column(kept, name, origin), MS, name, origin)
            chunk = column(kept, "prefill_chunk_size", origin)
            decode = DecodePoints(*sizes, time)
            found.append(decode if part == "decode" else PrefillPoints(sizes[0], chunk, sizes[1], time))
    return found


def _network(rows: Rows, origin: str, tp: int, *_: object) -> list[Points]:
    name = "time_stats.all_reduce.median"
    kept = [row for row in _at(rows, tp) if _whole(row.get("devices_per_node")) in (None, tp)]
    kept = kept or _at(rows, tp)
    if not kept:
        return []
    time = seconds(column(kept, name, origin), MS, name, origin)
    return [LinkPoints(column(kept, "size", origin, 1), time)]


def _kernels(rows: Rows, origin: str, _: int, heads: int | None, kv_heads: int | None) -> list[Points]:
    kept = [row for row in rows if _same_kernel(row, heads, kv_heads)]
    if not kept:
        return []
    time = seconds(column(kept, "latency", origin), MS, "latency", origin)
    batch, length = column(kept, "batch_size", origin, 1), column(kept, "isl", origin, 1)
    earlier = column(kept, "step", origin)
    if rows[0]["op_name"] == "generation_attention":
        return [DecodePoints(batch, length + earlier, time)]
    return [PrefillPoints(batch, length, earlier, time)]


def _same_kernel(row: Mapping[str, Any], heads: int | None, kv_heads: int | None) -> bool:
    """Plain BF16 attention with head size 128, no window, and the heads asked for."""
    plain = row["attn_dtype"] == row["kv_cache_dtype"] == "bfloat16" and row["head_dim"] == 128
    same = row["num_heads"] == heads and row["num_key_value_heads"] == kv_heads
    return plain and same and not row.get("window_size")


def _dense(rows: Rows, origin: str, *_: object) -> list[Points]:
    """One row a part of a layer and number of tokens: summed over the parts, norms twice."""
    kept = [row for row in rows if row["layer"] in LAYER_PARTS]
    time = seconds(column(kept, "time_us", origin), US, "time_us", origin)
    often = np.array([LAYER_PARTS[row["layer"]] for row in kept])
    tokens, where = np.unique(column(kept, "tokens", origin, 1), return_inverse=True)
    total: Floats = np.bincount(where, time * often).astype(np.float64)
    return [LayerPoints(tokens, total)]


def _mixed_attention(rows: Rows, origin: str, *_: object) -> list[Points]:
    """Steps that only decode or only read; those that do both are left out."""
    names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
    chunk, prefix, n, context, time = (column(rows, name, origin) for name in names)
    time = seconds(time, US, "time_us", origin)
    only, read = (chunk == 0) & (n > 0), (n == 0) & (chunk > 0)
    decode = DecodePoints(n[only], context[only], time[only])
    return [decode, PrefillPoints(np.ones(int(read.sum())), chunk[read], prefix[read], time[read])]


def _steps(rows: Rows, origin: str, *_: object) -> list[Points]:
    time = seconds(column(rows, "seconds", origin), 1.0, "seconds", origin)
    read = column(rows, "tokens", origin) if "tokens" in rows[0] else np.zeros(len(rows))
    return [StepPoints(read, column(rows, "batch", origin), column(rows, "context", origin), time)]


def _vtc_requests(rows: Rows, origin: str, *_: object) -> list[Points]:
    began = column(rows, "req_time", origin)
    first = began + seconds(column(rows, "first_token_latency", origin), 1.0, "first_token_latency", origin)
    last = began + seconds(column(rows, "request_latency", origin), 1.0, "request_latency", origin)
    sizes = column(rows, "prompt_len", origin, 1), column(rows, "output_len", origin, 1)
    return [_ordered(RequestPoints(began, first, last, *sizes), origin)]


def _vllm_requests(rows: Rows, origin: str, *_: object) -> list[Points]:
    names = ("scheduled_ts", "first_token_ts", "last_token_ts", "input_toks", "output_toks")
    start, first, last, prompt, output = (column(rows, name, origin) for name in names)
    return [_ordered(RequestPoints(start, first, last, prompt, output), origin)]


def _ordered(points: RequestPoints, origin: str) -> RequestPoints:
    bad = np.flatnonzero(~((points.start <= points.first) & (points.first <= points.last)))
    if bad.size:
        raise DataError(
            f"{origin}: row {bad[0] + 1}: a first token before the start, or after the last", "order"
        )
    return points


_FORMS = (
    ({"time_stats.mlp_up_proj.median", "num_tokens"}, _layers),
    ({"time_stats.attn_decode.median", "batch_size", "kv_cache_size", "is_prefill"}, _vidur_attention),
    ({"time_stats.all_reduce.median", "size"}, _network),
    ({"op_name", "isl", "step", "num_heads", "num_key_value_heads", "latency"}, _kernels),
    ({"layer", "tokens", "time_us"}, _dense),
    ({"prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"}, _mixed_attention),
    ({"batch", "context", "seconds"}, _steps),
    ({"prompt_len", "output_len", "req_time", "first_token_latency", "request_latency"}, _vtc_requests),
    ({"input_toks", "output_toks", "scheduled_ts", "first_token_ts", "last_token_ts"}, _vllm_requests),
)


def read_overhead(path: str | Path, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(sequences, seconds) of an engine's own work in a step, from Vidur's CPU table, for one model.

    Raises `DataError` where the table has no such rows.
    """
    rows = [row for row in read_rows(path) if str(row.get("model_name", "")).lower().endswith(model.lower())]
    if not rows:
        raise DataError(f"{path}: no rows of model {model}", "a CPU table with column model_name")
    parts: Iterable[np.ndarray] = (column(rows, f"{part}_median", str(path)) for part in CPU_PARTS)
    return column(rows, "batch_size", str(path), 1), np.sum(list(parts), axis=0) * MS
