"""The routed graph in Node: the same file, the same inputs, the same numbers.

Needs `npm install onnxruntime-node` in build/node (`make node`) or in the folder that MOPE_NODE names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from mope.export.parity import prompts, routed_feed
from mope.export.routed import OUTPUTS
from mope.predictor import layout
from mope.predictor.bundle import MoPE

ROOT = Path(__file__).parents[2]
MODULES = Path(os.environ.get("MOPE_NODE", ROOT / "build" / "node")) / "node_modules"
SCRIPT = ROOT / "tests" / "node" / "run.mjs"
REQUESTS = prompts()[-12:]


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    if program is None or not (MODULES / "onnxruntime-node").is_dir():
        pytest.skip("no node with onnxruntime-node: make node")
    return program


@pytest.mark.parametrize("kind", layout.KINDS)
def test_node_gives_the_same_numbers(kind: str, node: str, exported: tuple[Path, Path], tmp_path: Path):
    graph = exported[0] / layout.onnx_file(layout.ROUTED, kind)
    feed = routed_feed(MoPE.from_pretrained(exported[0], backend="torch"), REQUESTS)
    (tmp_path / "inputs.json").write_text(json.dumps({name: plain(array) for name, array in feed.items()}))
    words = [node, str(SCRIPT), str(graph), str(tmp_path / "inputs.json")]
    done = subprocess.run(words, env=os.environ | {"NODE_PATH": str(MODULES)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    expected = ort.InferenceSession(graph).run(list(OUTPUTS), feed)
    for name, values in zip(OUTPUTS, expected, strict=True):
        # two builds of the runtime may sum in another order, and tip a level of int8 over
        assert np.allclose(
            np.reshape(got[name], values.shape), values, rtol=2e-3 if kind == "int8" else 1e-4
        ), name


def plain(array: np.ndarray) -> dict[str, object]:
    """An array as JSON has it: NaN as null."""
    values = [None if value != value else value for value in array.ravel().tolist()]
    kind = "float32" if array.dtype == np.float32 else "int64"
    return {"type": kind, "dims": list(array.shape), "data": values}
