"""What the README shows runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS)
def test_python_runs(code: str):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_there_is_something_to_run():
    assert BLOCKS


def test_every_command_and_preset_exists():
    from mope.cli import COMMANDS
    from mope.training.recipe import presets

    assert set(re.findall(r"^    mope ([\w-]+)", README, re.MULTILINE)) <= set(COMMANDS)
    assert set(re.findall(r"^\| `([\w-]+)` \|", README, re.MULTILINE)) == set(presets())


def test_every_link_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
