"""A row for each row and in order, whatever the form, the processes and the moment of the kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bulk_doubles import SIZE, Exact, Home

from mope.bulk import record
from mope.bulk.answers import Buckets, Lengths
from mope.bulk.run import Options, Summary, predict_file
from mope.errors import BadInput, ConfigError, DataError, MopeError
from mope.predictor.bundle import MoPE
from mope.predictor.overlay import Overlay
from mope.predictor.overlays import identity, write_overlay
from mope.types import Request

DOUBLES = Path(__file__).with_name("bulk_doubles.py")
EIGHT = Options(size=SIZE)


def predict(path: Path, output: Path, maker: Any = None, options: Options = EIGHT) -> Summary:
    summary = predict_file(path, output, maker or Exact(), options)
    assert summary is not None
    assert not record.folder_of(output).exists()
    return summary


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected(path: Path, size: int = SIZE) -> list[dict[str, Any]]:
    """What `Exact` says of every row."""
    rows = read(path)
    sizes = [len(row["prompt"] or "") for row in rows]
    out = []
    for i, row in enumerate(rows):
        part = sum(sizes[i // size * size : (i // size + 1) * size])
        known = {"size": sizes[i], "together": float(part), "who": row["model"], "error": None}
        empty = {"size": None, "together": None, "who": None, "error": "no prompt"}
        out.append({"row": i, "id": row["id"], **(known if row["prompt"] else empty)})
    return out


@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_row_in_order(
    source: str, output: str, processes: int, write_rows: Callable[..., Path], tmp_path: Path, prompts: Path
):
    path = write_rows(source, read(prompts))
    summary = predict(path, tmp_path / output, options=replace(EIGHT, processes=processes))
    assert read(tmp_path / output) == expected(path)
    assert list(read(tmp_path / output)[0]) == ["row", "id", "size", "together", "who", "error"]
    assert (summary.rows, summary.errors, summary.resumed) == (60, {"no prompt": 9}, 0)


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("rows", [1, 8, 9])
def test_odd_sizes(rows: int, name: str, output: str, write_rows: Callable[..., Path], tmp_path: Path):
    path = write_rows(name, [{"id": i, "prompt": "a" * i, "model": "m"} for i in range(1, rows + 1)])
    assert predict(path, tmp_path / output).rows == rows
    assert [row["size"] for row in read(tmp_path / output)] == list(range(1, rows + 1))


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
def test_a_table_without_rows(output: str, tmp_path: Path):
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "in.parquet")
    assert predict(tmp_path / "in.parquet", tmp_path / output).rows == 0
    assert read(tmp_path / output) == []


def test_what_is_told_on_the_way_ends_with_all_rows(prompts: Path, tmp_path: Path):
    told: list[tuple[int, int]] = []
    predict_file(prompts, tmp_path / "o.jsonl", Exact(), EIGHT, lambda done, rows: told.append((done, rows)))
    assert told[-1] == (60, 60)
    assert told == sorted(told)


def die(prompts: Path, output: Path, point: str, processes: int = 1) -> None:
    command = [sys.executable, str(DOUBLES), str(prompts), str(output), point, str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    "point",
    [
        "answer1",
        "answer5",
        "rename1",
        "rename4",
        "merged",
        "rename10",
        "rename11",
        "rename12",
        "placed",
        "removing",
    ],
)
def test_after_a_kill_the_rest_makes_the_same_bytes(point: str, prompts: Path, tmp_path: Path):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    predict(prompts, whole)
    die(prompts, output, point)
    # The output is there whole or not at all.
    assert output.exists() == (point in ("placed", "removing"))
    summary = predict(prompts, output, options=replace(EIGHT, resume=True, processes=2))
    assert output.read_bytes() == whole.read_bytes()
    assert summary.errors == {"no prompt": 9}
    # Shards 1-4 were finished before the fifth answer; shards 1 and 2 before the fourth rename.
    finished = {"answer1": 0, "answer5": 32, "rename1": 0, "rename4": 16}.get(point, 60)
    assert summary.resumed == finished
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl", "whole.jsonl"]


def test_parquet_too_is_the_same_after_a_kill(prompts: Path, tmp_path: Path):
    whole, output = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    predict(prompts, whole)
    die(prompts, output, "answer4")
    assert predict(prompts, output, options=replace(EIGHT, resume=True)).resumed == 24
    assert output.read_bytes() == whole.read_bytes()


def test_a_full_disk_is_told_and_the_run_goes_on(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output, replace_file, calls = tmp_path / "out.jsonl", os.replace, 0

    def full(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise OSError(28, "No space left on device")
        replace_file(*args)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MopeError, match=r"cannot be written \(No space left on device\).*--resume"):
        predict_file(prompts, output, Exact(), EIGHT)
    assert predict(prompts, output, options=replace(EIGHT, resume=True)).resumed == 24
    assert read(output) == expected(prompts)


def test_a_file_where_the_shards_belong(prompts: Path, tmp_path: Path):
    record.folder_of(tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(BadInput, match=r"out\.jsonl\.parts.*beside the output"):
        predict_file(prompts, tmp_path / "out.jsonl", Exact(), replace(EIGHT, resume=True))


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look processes up in")
def test_processes_end_with_a_killed_parent_and_the_run_goes_on(prompts: Path, tmp_path: Path):
    place = tmp_path / "o"
    place.mkdir()
    command = [sys.executable, str(DOUBLES), str(prompts), str(place / "out.jsonl"), "", "2", "0.3"]
    folder = record.folder_of(place / "out.jsonl")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        wait_until(lambda: len(list(folder.glob("0*.jsonl"))) >= 2)
        parent.kill()
    pids = [int(path.name) for path in place.iterdir() if path.name.isdecimal()]
    assert len(pids) == 3  # the parent opens the forecaster too, to know its columns
    wait_until(lambda: not any(map(alive, pids)))
    assert not (place / "out.jsonl").exists()
    assert predict(prompts, place / "out.jsonl", options=replace(EIGHT, resume=True)).resumed >= 2 * SIZE
    assert read(place / "out.jsonl") == expected(prompts)


def test_a_process_that_dies_ends_the_run_and_keeps_its_shards(prompts: Path, tmp_path: Path):
    output, two = tmp_path / "out.jsonl", replace(EIGHT, processes=2)
    with pytest.raises(MopeError, match=r"signal 9.*--resume"):
        predict_file(prompts, output, Exact(dies_at=3), two)
    assert predict(prompts, output, options=replace(two, resume=True)).resumed >= 2 * SIZE
    assert read(output) == expected(prompts)


def test_an_error_in_a_process_reaches_the_caller(prompts: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="a process of its own"):
        predict_file(prompts, tmp_path / "o.jsonl", Home(), replace(EIGHT, processes=2))


def test_an_answer_of_another_length_is_refused(prompts: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"'size' of shape \(1,\)"):
        predict_file(prompts, tmp_path / "o.jsonl", Home(extra=1), EIGHT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maker": Exact("b")}, "mark was 'a', is 'b'"),
        ({"options": replace(EIGHT, size=16)}, "shard_rows was 8, is 16"),
        ({"options": replace(EIGHT, columns=())}, r"columns was \['id'\], is \[\]"),
        ({"options": replace(EIGHT, model="gpt")}, "model was None, is 'gpt'"),
        ({"options": replace(EIGHT, mapping={"prompt": "id"})}, "fields was"),
        ({"rows": 1}, "input_sha256 was .* rows was 60, is 61"),
    ],
)
def test_a_run_that_differs_is_not_resumed(
    change: dict[str, Any], message: str, prompts: Path, tmp_path: Path
):
    output = tmp_path / "out.jsonl"
    die(prompts, output, "answer3")
    if "rows" in change:
        prompts.write_text(prompts.read_text() + '{"prompt": "more"}\n')
    options = replace(change.get("options", EIGHT), resume=True)
    with pytest.raises(BadInput, match=message):
        predict_file(prompts, output, change.get("maker", Exact()), options)
    assert len(list(record.folder_of(output).glob("0*"))) == 2  # what was finished is still there


def test_an_unfinished_run_is_not_forgotten(prompts: Path, tmp_path: Path):
    output = tmp_path / "out.jsonl"
    die(prompts, output, "answer3")
    with pytest.raises(BadInput, match=r"unfinished run.*--resume.*--force"):
        predict_file(prompts, output, Exact(), EIGHT)
    assert predict(prompts, output, options=replace(EIGHT, force=True)).resumed == 0
    assert read(output) == expected(prompts)


def test_an_output_that_is_there_is_kept(prompts: Path, tmp_path: Path):
    output = tmp_path / "out.jsonl"
    output.write_text("old")
    for options in (EIGHT, replace(EIGHT, resume=True)):
        with pytest.raises(BadInput, match="there already"):
            predict_file(prompts, output, Exact(), options)
        assert output.read_text() == "old"
        assert not record.folder_of(output).exists()
    predict(prompts, output, options=replace(EIGHT, force=True))
    assert read(output) == expected(prompts)


def test_two_runs_at_once_are_refused(prompts: Path, tmp_path: Path):
    output = tmp_path / "out.jsonl"
    die(prompts, output, "answer3")
    with record._locked(record.folder_of(output)), pytest.raises(BadInput, match="another run"):
        predict_file(prompts, output, Exact(), replace(EIGHT, resume=True))


def test_a_broken_record_is_named(prompts: Path, tmp_path: Path):
    output = tmp_path / "out.jsonl"
    die(prompts, output, "answer3")
    (record.folder_of(output) / "job.json").write_text("{")
    with pytest.raises(DataError, match=r"job\.json cannot be read.*--force"):
        predict_file(prompts, output, Exact(), replace(EIGHT, resume=True))


@pytest.mark.parametrize(
    ("output", "message"),
    [("no/out.jsonl", "folder that is not there"), ("out.csv", r"\.parquet or \.jsonl"), (".", "is a folder"),
     ("prompts.jsonl", "two different files")],
)  # fmt: skip
def test_outputs_that_cannot_be(output: str, message: str, prompts: Path, tmp_path: Path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput, match=message):
        predict_file(prompts, tmp_path / output, Exact(), replace(EIGHT, force=True))
    assert sorted(tmp_path.iterdir()) == before


def test_a_column_that_would_stand_twice(write_rows: Callable[..., Path], tmp_path: Path):
    path = write_rows("in.jsonl", [{"prompt": "a", "size": 1}])
    with pytest.raises(BadInput, match="'size' to carry through"):
        predict_file(path, tmp_path / "o.jsonl", Exact(), Options(columns=("size",)))


def test_carried_columns_keep_what_they_hold(write_rows: Callable[..., Path], tmp_path: Path):
    rows = [{"prompt": "a", "n": 1, "deep": {"k": [1]}}, {"prompt": "b", "n": "x", "deep": float("nan")}]
    path, carry = write_rows("in.jsonl", rows), Options(columns=("n", "deep"))
    predict(path, tmp_path / "o.jsonl", options=carry)
    assert [(r["n"], r["deep"]) for r in read(tmp_path / "o.jsonl")] == [(1, {"k": [1]}), ("x", None)]
    predict(path, tmp_path / "o.parquet", options=carry)
    # JSON has no column types: text in Parquet.
    assert [(r["n"], r["deep"]) for r in read(tmp_path / "o.parquet")] == [("1", '{"k": [1]}'), ("x", "NaN")]
    pq.write_table(pa.table({"prompt": ["a"], "n": pa.array([7], pa.int16())}), tmp_path / "in.parquet")
    predict(tmp_path / "in.parquet", tmp_path / "p.parquet", options=Options(columns=("n",)))
    assert pq.read_schema(tmp_path / "p.parquet").field("n").type == pa.int16()


def test_the_bundles_own_forecasts(write_rows: Callable[..., Path], tmp_path: Path):
    """Int8 scales depend on a batch's rows: processes and a resumed run must make the same batches."""
    texts = [f"Write {i} words about {'autumn and ' * (i % 17)}rain." for i in range(70)]
    path = write_rows("in.jsonl", [{"prompt": text} for text in texts])
    maker, options = Lengths.of(), Options(size=16)
    assert maker.backend == "onnx-int8"
    predict(path, tmp_path / "one.jsonl", maker, options)
    predict(path, tmp_path / "two.jsonl", maker, replace(options, processes=2))
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    bundle, rows = MoPE.from_pretrained(), read(tmp_path / "one.jsonl")
    for start in range(0, 70, 16):
        for row, forecast in zip(rows[start:], bundle.predict(texts[start : start + 16]), strict=False):
            p = dict(zip(("p_short", "p_medium", "p_long"), forecast.probabilities, strict=True))
            assert {k: row[k] for k in ("tokens", "low", "high", "bucket")} | p == {
                "tokens": forecast.tokens, "low": forecast.low, "high": forecast.high, "bucket": forecast.bucket, **p
            }  # fmt: skip


def test_the_router_alone(write_rows: Callable[..., Path], tmp_path: Path):
    long = "word " * 3000  # longer than what training saw: cut before it is looked at
    path = write_rows("in.jsonl", [{"prompt": "hi"}, {"prompt": long}])
    predict(path, tmp_path / "o.jsonl", Buckets.of())
    rows = read(tmp_path / "o.jsonl")
    assert list(rows[0]) == ["row", "bucket", "p_short", "p_medium", "p_long", "error"]
    bundle = MoPE.from_pretrained()
    routed = bundle.lexical.probabilities([Request(text) for text in ("hi", long[:4000] + long[-2000:])])
    found = [[row["p_short"], row["p_medium"], row["p_long"]] for row in rows]
    assert found == routed.astype(float).tolist()


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
def test_memory_does_not_grow_with_the_file(name: str, tmp_path: Path):
    peaks = []
    for rows in (20_000, 100_000):
        path, output = tmp_path / f"{rows}{name}", tmp_path / f"out{rows}{name}"
        text = "word " * 60
        if path.suffix == ".parquet":
            pq.write_table(
                pa.table({"prompt": [f"{i} {text}" for i in range(rows)]}), path, row_group_size=rows
            )
        else:
            path.write_text("".join(f'{{"prompt": "{i} {text}"}}\n' for i in range(rows)))
        command = [sys.executable, str(DOUBLES), str(path), str(output), "measure"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        peaks.append(int(done.stdout))
    # The larger file has 24 MB more text; held in memory as rows it would take 60 MB more.
    assert peaks[1] - peaks[0] < 16e6, peaks


def test_an_overlay_that_came_or_changed_makes_other_answers(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    MoPE.from_pretrained().save_pretrained(folder)
    (folder / "overlays").mkdir()
    seen = [Buckets.of(folder).digest]
    bundle = MoPE.from_pretrained(folder)
    for shift in (0.0, 1.0):
        made = Overlay(model="mine", bundle=identity(folder, bundle.config), router=(shift, 0.0, 0.0))
        write_overlay(folder / "overlays" / "mine.json", made)
        seen.append(Buckets.of(folder).digest)
    assert len(set(seen)) == 3
