"""Exported graphs: checked against PyTorch, whole, and the compact bundle holds no PyTorch weights."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mope.errors import BundleError, ConfigError, MopeError
from mope.export import onnx_export, parity, trace
from mope.export.observe import observed
from mope.export.quantize import SCHEMES
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.types import Request


def test_every_network_has_both_graphs(exported: tuple[Path, Path]):
    names = {"trunk", "short", "medium", "long", "proxy", "router"}
    for folder in ("onnx", "onnx/fp16", "onnx/int8"):
        assert {p.stem for p in (exported[0] / folder).glob("*.onnx")} == names | {"routed"}


def test_what_was_measured_is_in_the_facts(exported: tuple[Path, Path]):
    facts = json.loads((exported[0] / "facts.json").read_text())
    rows = facts["export"]["forecasts"]
    assert {(row["graphs"], row["kind"]) for row in rows} == set(
        itertools.product(("networks", "routed"), layout.KINDS)
    )
    assert all(row["prompts"] == 70 and 0 <= row["mean_tokens"] <= row["largest_tokens"] for row in rows)
    assert "data" in facts  # what training noted is still there
    assert json.loads((exported[1] / "facts.json").read_text()) == facts


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
        target = tmp_path / layout.onnx_file(name, "fp32")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(exported[0] / layout.onnx_file(name, "fp32"), target)

    monkeypatch.setattr(trace, "write_graph", take)
    names = ["trunk", "short", "medium", "long", "proxy", "router"]
    trace.write_graphs(names, bundle, tmp_path)
    assert traced == ["trunk", "short", "router"]
    for name in names:
        made, kept = (folder / layout.onnx_file(name, "fp32") for folder in (tmp_path, exported[0]))
        assert made.read_bytes() == kept.read_bytes()


def test_the_compact_bundle_predicts_and_is_small(exported: tuple[Path, Path]):
    compact = exported[1]
    assert not list(compact.rglob("experts/*"))
    size = [sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) for folder in exported]
    assert size[1] < size[0] / 2
    assert MoPE.from_pretrained(compact).backend.name == "onnx-int8"


@pytest.mark.parametrize(
    ("bound", "words"), [("NETWORK", "the fp32 graph of"), ("MEAN", "the mean forecast by fp32")]
)
def test_a_graph_that_differs_is_not_kept(
    bound: str, words: str, exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = Path(shutil.copytree(exported[0], tmp_path / "b"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    bundle = MoPE.from_pretrained(folder, backend="torch")
    monkeypatch.setattr(parity, bound, {"fp32": -1.0})
    monkeypatch.setattr(onnx_export, "write_graphs", lambda names, _, home: give(exported[0], home))
    with pytest.raises(MopeError, match=f"{words}.* nothing was written"):
        onnx_export.export_onnx(bundle, folder, onnx_export.Plan())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def give(folder: Path, home: Path) -> None:
    """The fp32 graphs of a bundle, without tracing them."""
    shutil.copytree(folder / "onnx", home / "onnx", ignore=shutil.ignore_patterns("int8", "fp16"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_of_int8_answers_alike(
    scheme: str, exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = Path(shutil.copytree(exported[0], tmp_path / "b"))
    monkeypatch.setattr(onnx_export, "write_graphs", lambda names, _, home: give(exported[0], home))
    bundle = MoPE.from_pretrained(folder, backend="torch")
    facts = onnx_export.export_onnx(bundle, folder, onnx_export.Plan(int8=True, scheme=scheme))
    rows = {row["kind"]: row for row in facts["forecasts"]}
    assert 0 < rows["int8"]["mean_share"] < 0.05
    assert rows["fp32"]["mean_share"] < 1e-5
    sizes = {row["kind"]: row["bytes"] for row in facts["networks"] if row["network"] == "trunk"}
    assert sizes["int8"] < 0.4 * sizes["fp32"]


def test_static_scales_come_from_the_prompts_given(exported: tuple[Path, Path], tmp_path: Path):
    bundle = MoPE.from_pretrained(exported[0], backend="torch")
    give(exported[0], tmp_path)
    source = tmp_path / layout.onnx_file("short", "fp32")
    found = [
        observed(source, onnx_export._feeds("short", bundle, tmp_path, [Request(text)]))
        for text in ("hi", "Write a poem")
    ]
    assert found[0].keys() == found[1].keys()
    assert found[0] != found[1]
    both = observed(
        source, onnx_export._feeds("short", bundle, tmp_path, [Request("hi"), Request("Write a poem")])
    )
    for name, ends in both.items():
        assert np.allclose(ends, np.mean([one[name] for one in found], axis=0), rtol=1e-5), name


@pytest.mark.parametrize("plan", [{"scheme": "int3"}, {"routing": "random"}])
def test_a_plan_that_cannot_be(plan: dict[str, str]):
    with pytest.raises(ConfigError, match="one of"):
        onnx_export.Plan(**plan)


def test_a_file_larger_than_its_network_is_refused(exported: tuple[Path, Path], tmp_path: Path):
    """By the config, before it is read: a hole in a file takes no disk."""
    for name, backend, words in (
        ("onnx/trunk.onnx", "onnx", "trunk.onnx of"),
        ("trunk.safetensors", "torch", "trunk.safetensors of"),
    ):
        folder = Path(shutil.copytree(exported[0], tmp_path / backend))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "files": {}}))
        bundle = MoPE.from_pretrained(folder, backend=backend)
        most = bundle.config.most_bytes
        assert (folder / name).stat().st_size < most
        os.truncate(folder / name, most + 1)
        with pytest.raises(BundleError, match=f"{words} {most + 1:,} bytes"):
            bundle.predict("hello")
