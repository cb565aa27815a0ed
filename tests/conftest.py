"""What all tests need: no network, one thread, no window; a tiny bundle trained once."""

from __future__ import annotations

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Two test processes share the cores, and OpenMP spins at barriers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine must not fail a property: time is nobody's property here.
settings.register_profile("mope", deadline=None)
settings.load_profile("mope")

QUICK = (
    "epochs.proxy=0.5", "epochs.proxy_tower=0.25", "epochs.router=0.25", "epochs.experts=0.5", "epochs.joint=0.25",
)  # fmt: skip


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """Settings that make the tiny preset a matter of seconds."""
    return QUICK


@pytest.fixture(scope="session")
def train_tiny() -> Callable[..., Path]:
    """Trains a bundle of the tiny preset on made-up chats."""
    return _train_tiny


def _train_tiny(folder: Path, rows: int = 700, settings: Sequence[str] = (), seed: int = 0) -> Path:
    from mope.data.synthetic import synthetic
    from mope.training.recipe import load_recipe
    from mope.training.train import train

    return train(load_recipe("tiny", settings=(*QUICK, *settings)), synthetic(rows, seed), folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained bundle with PyTorch weights; read only."""
    return _train_tiny(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def exported(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same bundle with ONNX graphs, and its compact form; read only."""
    import shutil

    from typer.testing import CliRunner

    from mope.cli import build_app

    folder = tmp_path_factory.mktemp("exported")
    full, compact = folder / "full", folder / "compact"
    shutil.copytree(tiny, full, ignore=shutil.ignore_patterns("run"))
    words = ["export", str(full), "--int8", "--fp16", "--routed", "--compact", str(compact), "--json"]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["networks"]) == 18  # one document: six networks, three types
    return full, compact
