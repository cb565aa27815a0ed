"""kill -9 at any point, --resume, and the bundle is the one the unbroken run makes, byte for byte.

A child process tells every event of a run (a step, a checkpoint, a file put in its place) by name, and kills itself
at the event it is told to.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROWS = 250
# One interpreter that has loaded everything forks a fresh run for each line it reads: FOLDER EVENT.
PROGRAM = """
import os, signal, sys, traceback
from pathlib import Path
import lightning.pytorch as pl
from mope.data.synthetic import synthetic
from mope.training import cache, modules
from mope.training.recipe import load_recipe
from mope.training.train import train

SETTINGS = ["optim.chunk=3", "optim.batch=16", "optim.validations=8", "optim.patience=1", "epochs.experts=3"]
folder, armed, events = "", "", {}

def event(*words):
    name = ":".join(map(str, words))
    events[name] = events.get(name, 0) + 1
    name = f"{name}:{events[name]}"
    with open(folder + ".events", "a") as file:
        file.write(name + chr(10))
    if name == armed:
        os.kill(os.getpid(), signal.SIGKILL)

def stage_of(path):
    return Path(path).parent.name.rsplit("-", 1)[0]

def wrapped(owner, name, before, after=None):
    old = getattr(owner, name)
    def new(*args, **kwargs):
        event(*before(*args))
        out = old(*args, **kwargs)
        if after:
            event(*after(*args))
        return out
    setattr(owner, name, new)

wrapped(modules.StageModule, "training_step",
    lambda self, *_: ("step", stage_of(self.trainer.checkpoint_callbacks[0].dirpath + "/x")))
wrapped(pl.Trainer, "save_checkpoint",
    lambda self, path, *_: ("save", stage_of(path), Path(path).name),
    lambda self, path, *_: ("saved", stage_of(path), Path(path).name))
wrapped(os, "replace", lambda source, target: ("place", stage_of(target), Path(target).name))
wrapped(cache.Path, "rename", lambda self, target: ("rename", stage_of(target)))
wrapped(cache.Path, "unlink", lambda self, *_, **__: ("unlink", stage_of(self), self.name.strip(".").split(".")[0]))

for line in sys.stdin:
    folder, _, armed = line.strip().partition(" ")
    child = os.fork()
    if not child:
        try:
            train(load_recipe("tiny", settings=SETTINGS), synthetic({rows}), folder, resume=True)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Runs of one recipe on one data set."""

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", PROGRAM.replace("{rows}", str(ROWS))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def __call__(self, folder: Path, event: str = "") -> int:
        """Train into `folder`, dying at `event`; the exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{folder} {event}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    made = Runs()
    with made.process:
        yield made
        assert made.process.stdin is not None
        made.process.stdin.close()


@pytest.fixture(scope="module")
def unbroken(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "b"
    assert runs(folder) == 0
    return folder


def events(folder: Path) -> list[str]:
    """What happened in a folder, in all its runs."""
    return Path(f"{folder}.events").read_text().split()


def result(folder: Path) -> dict[str, bytes]:
    """Weights and calibration, and the validation scores."""
    files = [p for p in sorted(folder.rglob("*")) if "run" not in p.relative_to(folder).parts]
    found = {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in files
        if p.suffix == ".safetensors" or p.name in ("config.json", "calibration.json", "tokenizer.json")
    }
    scores = json.loads((folder / "facts.json").read_text())["validation"]
    return found | {"scores": json.dumps(scores).encode()}


def test_the_unbroken_run_is_cut_into_pieces_worth_killing(unbroken: Path):
    told = events(unbroken)
    saved = {
        stage: sum(e.startswith(f"saved:{stage}:last") for e in told) for stage in ("proxy", "expert-long")
    }
    assert saved == {"proxy": 2, "expert-long": 4}, "the proxy is stopped early, an expert is not"


# Each line is one run killed again and again: every event is reached after the resume from the one before.
@pytest.mark.parametrize(
    "points",
    [
        ("step:proxy:5", "saved:router:best.ckpt:2", "step:expert-long:8", "place:b:config.json:1"),
        ("place:proxy:proxy.safetensors:1", "rename:hidden:2", "step:proxy_tower:7", "step:joint:8"),
        (
            "saved:proxy:best.ckpt:1",
            "unlink:proxy:last:1",
            "saved:expert-short:last.ckpt:2",
            "place:joint:done.json:1",
        ),
    ],
)
def test_a_killed_run_ends_where_the_unbroken_one_does(
    points: tuple[str, ...], runs: Runs, unbroken: Path, tmp_path: Path
):
    folder = tmp_path / "b"
    for point in points:
        assert runs(folder, point) == -signal.SIGKILL, f"{point} did not happen"
        assert not (folder / "config.json").exists(), "a killed run must not look like a bundle"
    assert runs(folder) == 0
    assert result(folder) == result(unbroken)
    assert not list(folder.rglob("*.ckpt"))


def test_a_finished_run_trains_nothing_again(runs: Runs, unbroken: Path):
    before = len(events(unbroken))
    was = result(unbroken)
    assert runs(unbroken) == 0
    assert not [name for name in events(unbroken)[before:] if name.startswith(("step", "save"))]
    assert result(unbroken) == was
