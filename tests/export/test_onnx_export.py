"""Exported graphs: checked against PyTorch, whole, and the compact bundle holds no PyTorch weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mope.errors import MopeError
from mope.export import onnx_export
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.types import Request


def test_every_network_has_both_graphs(exported: tuple[Path, Path]):
    names = {"trunk", "short", "medium", "long", "proxy", "router"}
    for folder in ("onnx", "onnx/int8"):
        assert {p.stem for p in (exported[0] / folder).glob("*.onnx")} == names


def test_graphs_hold_no_paths_of_this_machine(exported: tuple[Path, Path]):
    for path in (exported[0] / "onnx").rglob("*.onnx"):
        content = path.read_bytes()
        assert b".py" not in content, path
        assert b"stack_trace" not in content, path


def test_one_graph_is_traced_for_the_experts_and_the_proxy(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Here nothing is traced: every other name finds the graph of its twin."""
    bundle = MoPE.from_pretrained(exported[0], backend="torch")
    traced = []

    def take(name: str, *_: object) -> None:
        traced.append(name)
        target = tmp_path / layout.onnx_file(name, False)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(exported[0] / layout.onnx_file(name, False), target)

    monkeypatch.setattr(onnx_export, "_write_graph", take)
    names = ["trunk", "short", "medium", "long", "proxy", "router"]
    onnx_export._write_graphs(names, bundle, tmp_path)
    assert traced == ["trunk", "short", "router"]
    for name in names:
        made, kept = (folder / layout.onnx_file(name, False) for folder in (tmp_path, exported[0]))
        assert made.read_bytes() == kept.read_bytes()


def test_the_compact_bundle_predicts_and_is_small(exported: tuple[Path, Path]):
    compact = exported[1]
    assert not list(compact.rglob("experts/*"))
    size = [sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) for folder in exported]
    assert size[1] < size[0] / 2
    assert MoPE.from_pretrained(compact).backend.name == "onnx-int8"


def test_a_graph_that_differs_is_not_kept(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = Path(shutil.copytree(tiny, tmp_path / "b", ignore=shutil.ignore_patterns("run")))
    bundle = MoPE.from_pretrained(folder, backend="torch")
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    monkeypatch.setattr(onnx_export.layout, "NETWORKS", ("trunk",))
    batch = bundle.inputs([Request("hello")]).batch(np.array([0]))
    with pytest.raises(MopeError, match="trunk is off by"):
        onnx_export.export_onnx(bundle, folder, batch)
    assert not (folder / "onnx").exists()
