"""Peak memory of reading prompts from Parquet: page by page, as batch prediction does, and by `datasets`' stream.

    python scripts/parquet_readers.py [--rows 100000 400000]

Each reading is a process of its own, over a file with one row group of made-up prompts (seed 0), 1,024 rows at
a time. Needs Linux: the peak is VmHWM of /proc.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mope.bulk.tables import ParquetFile

SIZE, WORDS = 1024, 60


def write(path: Path, rows: int) -> None:
    """`rows` prompts of 60 words out of 5,000, in one row group."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(5000)]
    table = pa.table({"prompt": [f"{row} {' '.join(draw.choices(words, k=WORDS))}" for row in range(rows)]})
    pq.write_table(table, path, row_group_size=rows)


def read(reader: str, path: Path) -> int:
    """Read all; rows seen."""
    if reader == "pages":
        return sum(len(table) for _, table in ParquetFile(path).read(["prompt"], SIZE, ()))
    import datasets

    stream = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", streaming=True, columns=["prompt"], batch_size=SIZE
    )
    return sum(len(table) for table in stream.with_format("arrow").iter(batch_size=SIZE))


def peak_mb() -> float:
    """Peak resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 400_000])
    parser.add_argument(
        "--read", nargs=2, metavar=("READER", "FILE"), help="what each process is started with"
    )
    args = parser.parse_args()
    if args.read:
        seen = read(args.read[0], Path(args.read[1]))
        print(json.dumps({"reader": args.read[0], "rows": seen, "peak_mb": round(peak_mb(), 1)}))
        return
    print(json.dumps({name: version(name) for name in ("datasets", "pyarrow")}))
    with tempfile.TemporaryDirectory() as folder:
        for rows in args.rows:
            path = Path(folder, f"{rows}.parquet")
            write(path, rows)
            for reader in ("pages", "datasets"):
                command = [sys.executable, __file__, "--read", reader, str(path)]
                print(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip())


if __name__ == "__main__":
    main()
