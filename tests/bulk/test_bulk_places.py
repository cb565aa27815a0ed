"""Which process works on which device, and processes that a launcher started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from mope.bulk.places import devices, launched
from mope.errors import ConfigError

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.mark.parametrize(
    ("gpus", "processes", "seen", "expected"),
    [
        (0, None, "", ("",)),
        (0, 3, "0,1", ("", "", "")),
        (2, None, "", ("0", "1")),
        (2, 1, "", ("0",)),
        (2, 3, "", ("0", "1", "0")),
        (2, None, "5,GPU-7", ("5", "GPU-7")),
    ],
)
def test_a_process_for_each_gpu(
    gpus: int, processes: int | None, seen: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert devices(gpus, processes) == expected


def test_no_process_is_none():
    with pytest.raises(ConfigError, match="0 processes"):
        devices(0, 0)


@pytest.mark.parametrize("env", [{}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "1", "LOCAL_RANK": "0"}])
def test_a_process_that_is_alone(env: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert launched(0) is None


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")
def test_two_processes_of_a_launcher_share_the_work(tmp_path: Path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {i} words"}) + "\n" for i in range(2100)))
    words = ["mope", "predict", "--file", str(path), "--router-only", "--output"]
    env = {k: v for k, v in os.environ.items() if k not in LAUNCHER} | {"CUDA_VISIBLE_DEVICES": ""}

    def run(output: str, *launcher: str) -> str:
        command = [sys.executable, *launcher, "-m", *words, str(tmp_path / output), "--json"]
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=120, check=True
        ).stdout

    run("alone.jsonl")
    told = run("two.jsonl", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    assert json.loads(told)["rows"] == 2100  # one of the two speaks
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert not (tmp_path / "two.jsonl.parts").exists()
