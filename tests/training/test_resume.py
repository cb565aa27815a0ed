"""kill -9 at any point, --resume, and the bundle is the one the unbroken run makes, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROWS = 250
PROGRAM = """
import sys
from mope.data.synthetic import synthetic
from mope.training.recipe import load_recipe
from mope.training.train import train
settings = ["optim.chunk=4", "optim.validations=4", "epochs.proxy=2", "epochs.experts=2"]
train(load_recipe("tiny", settings=settings), synthetic({rows}), sys.argv[1], resume=True)
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM.format(rows=ROWS), str(folder)], env=env)


def weights(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if (p.suffix == ".safetensors" and "run" not in p.parts) or p.name == "calibration.json"
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "b"
    assert start(folder).wait() == 0
    return folder


def kill_when(folder: Path, pattern: str) -> None:
    """Start a run and kill it as soon as a file that matches `pattern` exists in it."""
    run = start(folder)
    while run.poll() is None and not list(folder.glob(pattern)):
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    assert not (folder / "config.json").exists(), "a killed run must not look like a bundle"


@pytest.mark.parametrize(
    "patterns",
    [
        ("run/stages/proxy-*/last.ckpt", "run/stages/proxy-*/done.json", "run/stages/joint-*/last.ckpt"),
        ("run/stages/expert-medium-*/last.ckpt", "trunk.safetensors"),
    ],
)
def test_a_killed_run_ends_where_the_unbroken_one_does(
    patterns: tuple[str, ...], unbroken: Path, tmp_path: Path
):
    folder = tmp_path / "b"
    for pattern in patterns:
        if not list(folder.glob(pattern)):
            kill_when(folder, pattern)
    assert start(folder).wait() == 0
    assert weights(folder) == weights(unbroken)
