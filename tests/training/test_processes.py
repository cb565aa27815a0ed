"""Two processes train one bundle: Lightning starts the command again, and the first process alone writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only

from mope.data.synthetic import synthetic
from mope.errors import TrainingError
from mope.predictor.bundle import MoPE
from mope.training import ranks

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")
SETTINGS = [
    "devices=2", "strategy=ddp", "optim.chunk=4", "optim.batch=8", "epochs.proxy=0.5", "epochs.proxy_tower=0.25",
    "epochs.router=0.25", "epochs.experts=0.5", "epochs.joint=0.25",
]  # fmt: skip


def mope_train(data: Path, output: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, "-m", "mope", "train", str(data), "-o", str(output), "--preset", "tiny"]
    gone = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
    env = {k: v for k, v in os.environ.items() if k not in gone} | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, "--no-evaluate", *settings, *extra], env=env, capture_output=True, text=True, timeout=300
    )


def test_two_processes_write_one_whole_bundle(tmp_path: Path):
    data = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"{e.request.prompt} ({i})", "response_tokens": e.lengths[0]}
        for i, e in enumerate(synthetic(250).examples)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "b"
    done = mope_train(data, folder)
    assert done.returncode == 0, done.stderr
    assert MoPE.from_pretrained(folder).predict("hello").tokens > 0
    stages = {p.name.rsplit("-", 1)[0]: p for p in folder.glob("run/stages/*")}
    assert set(stages) >= {"proxy", "proxy_tower", "router", "expert-short", "joint", "floors", "hidden"}
    assert not [p for p in folder.rglob("*") if "partial" in p.name or p.suffix == ".ckpt"]
    for stage, path in stages.items():
        logs = sorted(p.name for p in path.glob("log/*"))
        assert logs == ([] if stage in ("floors", "hidden") else ["version_0"])
    # Each process takes every other batch of a chunk of four, so two steps are what one process needs four for.
    texts = json.loads((folder / "facts.json").read_text())["data"]["examples"]["train"]
    alone = round(-(-texts // 8) * 0.5)
    record = json.loads((stages["proxy"] / "done.json").read_text())
    assert alone / 2 <= record["steps"] <= alone / 2 + 1

    again = mope_train(data, folder)
    assert again.returncode == 2
    assert "not empty" in again.stderr
    was = (folder / "proxy.safetensors").read_bytes()
    assert mope_train(data, folder, "--resume").returncode == 0
    assert (folder / "proxy.safetensors").read_bytes() == was


@pytest.mark.parametrize(
    ("rank", "node", "writes"), [(0, None, True), (1, None, False), (0, "1", False), (0, "0", True)]
)
def test_the_first_process_of_the_first_machine_writes(
    rank: int, node: str | None, writes: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    monkeypatch.delenv("NODE_RANK", raising=False)
    if node is not None:
        monkeypatch.setenv("NODE_RANK", node)
    assert ranks.first() is writes


def test_the_others_wait_for_a_file_but_not_for_the_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "states.f16"
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setattr(ranks.time, "sleep", lambda _: path.write_text("x"))
    ranks.wait_for(path)
    path.unlink()
    monkeypatch.setattr(ranks, "PARENT", -1)
    with pytest.raises(TrainingError, match="first process"):
        ranks.wait_for(path)
