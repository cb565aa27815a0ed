"""What a bare import and the help text load. Seconds are not asserted: they belong to the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mope.cli

HEAVY = {
    "accelerate", "datasets", "lightning", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxscript",
    "pandas", "pyarrow", "scipy", "sklearn", "tokenizers", "torch", "transformers", "triton",
}  # fmt: skip
BASE = {"numpy", "onnxruntime", "tokenizers"}  # heavy, but of the base install


def loaded_by(code: str) -> set[str]:
    """The heavy modules in `sys.modules` after `code` has run in a process of its own."""
    ending = "\nimport json, sys\nsys.stderr.write('\\n' + json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, check=True)
    return HEAVY & set(json.loads(done.stderr.splitlines()[-1]))


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_by("import numpy") == {"numpy"}


def test_import_mope_loads_nothing_heavy() -> None:
    assert loaded_by("import mope; mope.Message, mope.Request, mope.DataError") == set()


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in mope.cli.COMMANDS)])
def test_help_loads_nothing_heavy(argv: list[str]) -> None:
    code = f"import mope.cli\ntry: mope.cli.main({argv})\nexcept SystemExit as end: assert end.code == 0"
    assert loaded_by(code) == set()


def test_the_predictor_needs_only_the_base_install_to_load() -> None:
    assert loaded_by("import mope; mope.MoPE") <= BASE
