"""The graph that holds all networks: its tail against numpy, soft and hard routing, what it says of itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mope.data.synthetic import synthetic
from mope.export import onnx_export
from mope.export.parity import ask_routed
from mope.export.tail import Tail
from mope.predictor.bundle import MoPE
from mope.predictor.calibration import Calibration
from mope.predictor.config import LEVELS
from mope.predictor.mixture import mix

REQUESTS = synthetic(24, seed=3).requests


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.booleans())
def test_the_tail_is_mixture_and_calibration(seed: int, rows: int, soft: bool):
    rng = np.random.default_rng(seed)
    knots = np.sort(rng.normal(4, 2, (rows, 3, len(LEVELS))), axis=-1)
    chances = rng.dirichlet([0.3] * 3, rows)
    shifts = rng.normal(0, 0.3, (3, 2))
    column = "soft" if soft else "hard"
    calibration = Calibration({column: tuple(map(tuple, shifts.tolist()))})
    logs = mix(knots, chances, LEVELS) if soft else knots[:, 0]
    low, high = calibration.interval(column, chances.argmax(1), logs, LEVELS)
    tail = Tail(LEVELS, shifts.tolist(), soft)
    given = torch.from_numpy(knots if soft else knots[:, 0]).float(), torch.from_numpy(chances).float()
    got = [out.numpy() for out in tail(*given)]
    quantiles = np.maximum(np.expm1(np.minimum(logs, 20)), 0)
    for found, expected in zip(got, (quantiles[:, LEVELS.index(0.5)], low, high, quantiles), strict=True):
        assert np.allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_experts_run_only_for_rows_that_were_sent_to_them(exported: tuple[Path, Path]):
    """The tiny bundle routes hard: three `If`, each with an expert inside, weights outside."""
    model = onnx.load(exported[0] / "onnx" / "routed.onnx")
    branches = [node for node in model.graph.node if node.op_type == "If"]
    assert len(branches) == (3 if described(model)["routing"] == "hard" else 0)
    for node in branches:
        sizes = sorted(len(attribute.g.node) for attribute in node.attribute)
        assert sizes[0] == 1
        assert sizes[1] > 40
        assert not any(attribute.g.initializer for attribute in node.attribute)


@pytest.mark.parametrize("routing", ["soft", "hard"])
def test_either_routing_can_be_asked_for(
    routing: str, exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = Path(shutil.copytree(exported[0], tmp_path / "b"))
    monkeypatch.setattr(
        onnx_export,
        "write_graphs",
        lambda names, _, home: shutil.copytree(exported[0] / "onnx", home / "onnx"),
    )
    bundle = MoPE.from_pretrained(folder, backend="torch")
    onnx_export.export_onnx(bundle, folder, onnx_export.Plan(routed=True, routing=routing))
    session = ort.InferenceSession(folder / "onnx" / "routed.onnx")
    bundle.config = replace(bundle.config, routing=routing)
    expected = [forecast.tokens for forecast in bundle.predict(REQUESTS)]
    assert np.allclose(ask_routed(session, bundle, REQUESTS)["tokens"], expected, rtol=1e-3)
    assert session.get_modelmeta().custom_metadata_map["routing"] == routing


def test_it_says_what_a_gateway_has_to_know(exported: tuple[Path, Path]):
    bundle = MoPE.from_pretrained(exported[0], backend="torch")
    session = ort.InferenceSession(exported[0] / "onnx" / "routed.onnx")
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["features"]) == list(bundle.config.features)
    assert json.loads(known["models"]) == list(bundle.config.models)
    assert json.loads(known["levels"]) == list(bundle.config.quantiles)
    assert json.loads(known["text"])["prompt_head"] == bundle.config.text.prompt_head
    shapes = {value.name: value.shape for value in session.get_inputs()}
    assert shapes["ids"] == ["rows", "tokens"]
    assert shapes["features"] == ["rows", len(bundle.config.features)]
    assert ("lexical" in shapes) == (bundle.config.router != "encoder")


def described(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
