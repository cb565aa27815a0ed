"""The wheel holds everything, and works away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest

import mope

ROOT = Path(__file__).parents[1]
FOLDERS = {"mope": "mope", **{f"mope/{name}": name for name in ("training", "export", "serving_adapters")}}
FILES = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
JUNK = shutil.ignore_patterns("__pycache__")


def run(command: Sequence[str | Path], **kwargs: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left behind or looked into, and without the links."""
    copy = tmp_path_factory.mktemp("copy")
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=JUNK)
    for link in [path for path in (copy / "mope").iterdir() if path.is_symlink()]:
        link.unlink()
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    out = copy / "out"
    run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--skip-dependency-check",
            "--outdir",
            out,
            copy,
        ]
    )
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    run([*pip, "--disable-pip-version-check", "--target", target, wheel])
    return target


def tree() -> set[str]:
    """Path in the wheel of every file below the package folders."""
    found = set()
    for prefix, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            linked = folder == "mope" and f"mope/{inside.parts[0]}" in FOLDERS
            if path.is_file() and not linked and "__pycache__" not in inside.parts:
                found.add(f"{prefix}/{inside.as_posix()}")
    return found


def test_the_wheel_holds_the_whole_tree_and_nothing_else(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == tree()


def test_the_wheel_is_named_and_licensed(wheel: Path) -> None:
    info = f"mope_llm-{mope.__version__}.dist-info"
    assert wheel.name == f"mope_llm-{mope.__version__}-py3-none-any.whl"
    assert f"{info}/licenses/LICENSE" in ZipFile(wheel).namelist()
    assert b"License-Expression: Apache-2.0" in ZipFile(wheel).read(f"{info}/METADATA")


def test_the_installed_wheel_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    away = {**os.environ, "PYTHONPATH": str(installed)}
    code = "import mope, mope.training, mope.export, mope.serving_adapters; print(mope.__file__)"
    where = run([sys.executable, "-c", code], cwd=tmp_path, env=away)
    assert Path(where.strip()).is_relative_to(installed)
    assert "Usage: mope" in run(
        [sys.executable, installed / "bin" / "mope", "--help"], cwd=tmp_path, env=away
    )
