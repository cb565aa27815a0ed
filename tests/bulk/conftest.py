"""Files of prompts; the doubles can be imported, by processes that are started too."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def rows_of(n: int) -> list[dict[str, Any]]:
    """n rows; every seventh cannot be predicted."""
    return [
        {"id": f"r{i}", "prompt": "x" * (1 + i * 37 % 23) if i % 7 else None, "model": f"m{i % 3}"}
        for i in range(n)
    ]


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows under a name; its ending is the format."""

    def write(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def prompts(write_rows: Callable[..., Path]) -> Path:
    """60 rows in JSONL: eight shards of the doubles."""
    return write_rows("prompts.jsonl", rows_of(60))
