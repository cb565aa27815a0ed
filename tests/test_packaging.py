"""What the project says of itself agrees with the tree."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import mope

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
MAPPED = {name: folder for name, folder in SETUPTOOLS["package-dir"].items() if name != "mope"}


def packages_below(folder: Path, name: str) -> set[str]:
    """Every package below `folder`; a link inside it is not followed."""
    here = {name} if (folder / "__init__.py").exists() else set()
    below = [child for child in folder.iterdir() if child.is_dir() and not child.is_symlink()]
    return here.union(*(packages_below(child, f"{name}.{child.name}") for child in below))


def test_the_package_list_equals_the_tree() -> None:
    tree = packages_below(ROOT / "mope", "mope")
    for name, folder in MAPPED.items():
        tree |= packages_below(ROOT / folder, name)
    assert SETUPTOOLS["packages"] == sorted(tree)


@pytest.mark.parametrize(("name", "folder"), MAPPED.items())
def test_each_outside_folder_is_linked_into_mope(name: str, folder: str) -> None:
    link = ROOT.joinpath(*name.split("."))
    assert link.is_symlink()
    assert link.readlink() == Path("..", folder)


def test_every_python_file_lies_in_a_package() -> None:
    homes = [ROOT / "mope", *(ROOT / folder for folder in MAPPED.values())]
    stray = {path.parent for home in homes for path in home.rglob("*.py")}
    assert not [folder for folder in stray if not (folder / "__init__.py").exists()]


def test_the_changelogs_top_version_is_the_packages() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == mope.__version__


def test_the_constraints_pin_every_direct_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins)
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(entry for extra in extras.values() for entry in extra)]
    names = {re.split(r"[<>=\[;! ]", entry)[0] for entry in wanted}
    assert names - {"mope-llm", "triton", "tomli"} <= {pin.partition("==")[0] for pin in pins}
