"""`mope push` and `mope pull`: there and back over real HTTP, with the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import TOKEN, Fault, Hub
from typer.testing import CliRunner

from mope.cli import build_app
from mope.errors import BundleError, HubError
from mope.predictor.bundle import MoPE


@pytest.fixture
def bundle(exported: tuple[Path, Path], tmp_path: Path) -> Path:
    """A bundle with a card, and with things that are no part of it."""
    folder = Path(shutil.copytree(exported[1], tmp_path / "bundle"))
    assert CliRunner().invoke(build_app(), ["card", str(folder)]).exit_code == 0
    (folder / "notes.txt").write_text("secret")
    (folder / "run").mkdir()
    (folder / "run" / "last.ckpt").write_text("state")
    return folder


@pytest.fixture
def writer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def run(*words: str) -> str:
    result = CliRunner().invoke(build_app(), list(words), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_without_yes_nothing_is_sent(bundle: Path, writer: Hub):
    shown = run("push", str(bundle), "owner/tiny")
    assert "onnx/int8/short.onnx" in shown
    assert f"{(bundle / 'onnx/int8/short.onnx').stat().st_size:,}" in shown
    assert "say --yes" in shown
    assert "notes.txt" not in shown
    assert "last.ckpt" not in shown
    assert writer.log == []


def test_there_and_back(bundle: Path, writer: Hub, tmp_path: Path):
    said = json.loads(run("push", str(bundle), "owner/tiny", "--yes", "--json"))
    assert said["pushed"]
    assert said["commit"].startswith(f"{writer.url}/owner/tiny/commit/")
    back = json.loads(run("pull", "owner/tiny", "--output", str(tmp_path / "back"), "--json"))
    assert back["files"] == said["files"]
    assert "README.md" in back["files"]
    for name in said["files"]:
        assert (tmp_path / "back" / name).read_bytes() == (bundle / name).read_bytes()
    assert set(writer.repos["owner/tiny"]["main"]) == set(said["files"])
    forecasts = [MoPE.from_pretrained(folder).predict("hello") for folder in (bundle, tmp_path / "back")]
    assert forecasts[0] == forecasts[1]


def test_from_python_to_a_branch_of_a_private_repository(
    bundle: Path, writer: Hub, monkeypatch: pytest.MonkeyPatch
):
    loaded = MoPE.from_pretrained(bundle)
    loaded.push_to_hub("owner/tiny", revision="next", private=True, message="First")
    assert set(writer.repos["owner/tiny"]["next"]) == set(loaded.files)
    assert writer.repos["owner/tiny"]["main"] == {}
    assert MoPE.from_pretrained("owner/tiny", revision="next").predict("hello") == loaded.predict("hello")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(BundleError, match="set HF_TOKEN"):
        MoPE.from_pretrained("owner/tiny", revision="next")


def test_a_second_push_is_a_second_commit(bundle: Path, writer: Hub):
    first, second = (run("push", str(bundle), "owner/tiny", "--yes") for _ in range(2))
    assert "pushed" in first
    assert "pushed" in second
    assert len([line for line in writer.log if "/commit/main" in line]) <= 2


@pytest.mark.parametrize(
    ("place", "kind", "error"),
    [("repos/create", 401, BundleError), ("repos/create", 403, BundleError), ("preupload", 500, HubError),
     ("/commit/", 429, HubError), ("/commit/", 500, HubError)],
)  # fmt: skip
def test_a_hub_that_does_not_take_it(
    place: str, kind: int, error: type[Exception], bundle: Path, writer: Hub
):
    writer.faults = [Fault(place, kind)]
    with pytest.raises(error, match=str(kind)) as caught:
        MoPE.from_pretrained(bundle).push_to_hub("owner/tiny")
    assert TOKEN not in str(caught.value)
    assert not writer.repos.get("owner/tiny", {}).get("main")


def test_a_bundle_without_a_card_is_not_pushed(exported: tuple[Path, Path], writer: Hub):
    with pytest.raises(BundleError, match="mope card"):
        run("push", str(exported[1]), "owner/tiny", "--yes")
    assert writer.log == []


def test_as_a_user_does_it(bundle: Path, writer: Hub, tmp_path: Path):
    """In a process of its own, with nothing but the environment: the address and the token come from there."""
    env = os.environ | {
        "HF_ENDPOINT": writer.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN,
    }  # fmt: skip
    for words in (["push", str(bundle), "owner/tiny", "--yes", "--private"], ["pull", "owner/tiny"]):
        done = subprocess.run([sys.executable, "-m", "mope", *words], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_dir()
    wrong = env | {"HF_TOKEN": "hf_wrong", "HF_HOME": str(tmp_path / "other")}
    words = [sys.executable, "-m", "mope", "pull", "owner/tiny"]
    done = subprocess.run(words, env=wrong, capture_output=True, text=True)
    assert done.returncode == 2
    assert "private one" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hf_wrong" not in done.stdout + done.stderr
