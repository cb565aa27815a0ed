"""Rows a second and memory of batch prediction, on rows made from the prompts of a sample.

    python scripts/bulk_million.py [--rows 1000000] [--full] [--processes N] [--output NUMBERS.json]

Writes the prompts of samples/chats.jsonl.gz again and again, each with its row number before it so that no two
are the same, to a Parquet file; runs `mope predict` on it with the bundle that ships (`--router-only` unless
--full), and prints rows/s, the peak memory of the process and all that it starts (sum of resident sizes, which
counts shared pages once a process), and the machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mope.machine import machine

SAMPLE = Path(__file__).parents[1] / "samples" / "chats.jsonl.gz"
BATCH = 50_000
SAMPLED_S = 0.1


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """`rows` prompts with a number before each."""
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in file]
    for start in range(0, rows, BATCH):
        numbers = range(start, min(rows, start + BATCH))
        texts = [f"{number}. {prompts[number % len(prompts)]}" for number in numbers]
        yield pa.RecordBatch.from_pydict({"id": pa.array(numbers, pa.int64()), "prompt": texts})


def write(path: Path, rows: int) -> None:
    """The input, one row group a million rows as most writers make them."""
    schema = pa.schema([("id", pa.int64()), ("prompt", pa.string())])
    pq.write_table(pa.Table.from_batches(batches(rows), schema), path)


def resident(pid: int) -> int:
    """Bytes of a process and of everything below it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * 4096 + sum(resident(int(child)) for child in children)


def run(command: list[str]) -> tuple[dict[str, Any], float, int]:
    """What the command told, its seconds in all, its peak memory in bytes."""
    peak, start = 0, time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told: list[str] = []
        reader = threading.Thread(target=lambda: told.append(process.communicate()[0]))
        reader.start()
        while reader.is_alive():
            peak = max(peak, resident(process.pid))
            reader.join(SAMPLED_S)
        if process.returncode:
            raise SystemExit(process.returncode)
    return json.loads(told[0]), time.perf_counter() - start, peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--full", action="store_true", help="the whole bundle, not the router alone")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path, help="add the numbers to this file, one JSON object a line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.parquet"), Path(folder, "out.parquet")
        write(source, args.rows)
        words = ["--file", str(source), "--output", str(target), "--processes", str(args.processes), "--json"]
        words += [] if args.full else ["--router-only"]
        told, seconds, peak = run([sys.executable, "-m", "mope", "predict", *words])
        ids = pq.read_table(target, columns=["id"]).column("id")
        assert ids.equals(pa.chunked_array([pa.array(range(args.rows), pa.int64())])), "order"
        numbers = {
            "forecast": "full" if args.full else "router only", "rows": args.rows, "processes": args.processes,
            "rows_per_s": round(told["rows"] / seconds, 1), "seconds": round(seconds, 1),
            "peak_mb": round(peak / 1e6, 1), "input_mb": round(source.stat().st_size / 1e6, 1),
            "output_mb": round(target.stat().st_size / 1e6, 1), "errors": told["errors"],
            **machine(), "pyarrow": version("pyarrow"),
        }  # fmt: skip
    print(json.dumps(numbers))
    if args.output:
        with args.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(numbers) + "\n")


if __name__ == "__main__":
    main()
