"""One bundle, many ways to compute it: the same forecasts, and no forecast that depends on its neighbours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from mope.data.synthetic import synthetic
from mope.export.parity import ask_routed, prompts
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.onnx_backend import OnnxBackend, Session
from mope.types import Request

REQUESTS = [*synthetic(40, seed=5).requests, *prompts()[:20], *prompts()[-4:]]
FEW = REQUESTS[:6]  # Triton's interpreter is slow
# How far a forecast may be from PyTorch's, as a share of it: the largest of all prompts, and their mean. fp32 differs
# in the order of sums, fp16 in rounding below the head; int8 rounds weights and activations to 127 and 256 steps.
TOLERANCE = {
    "torch": (1e-6, 1e-6), "onnx": (1e-3, 1e-4), "onnx-fp16": (0.02, 2e-3), "onnx-int8": (0.25, 0.05),
    "triton": (0.02, 5e-3),
}  # fmt: skip
TRITON = """
import json, sys
from mope.predictor.bundle import MoPE
from mope.types import Request
folder, prompts = json.loads(sys.argv[1])
bundle = MoPE.from_pretrained(folder, backend="triton")
assert bundle.backend.name == "triton"
print(json.dumps([f.tokens for f in bundle.predict([Request(p) for p in prompts])]))
"""


def tokens(bundle: MoPE, requests: list[Request] = REQUESTS) -> np.ndarray:
    return np.array([forecast.tokens for forecast in bundle.predict(requests)])


def triton(folder: Path) -> np.ndarray:
    """Forecasts in Triton's interpreter, which has to be chosen before triton is imported: in its own process."""
    pytest.importorskip("triton")
    arguments = json.dumps([str(folder), [request.prompt for request in FEW]])
    env = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", TRITON, arguments], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


@pytest.mark.parametrize("backend", TOLERANCE)
def test_predict_is_the_same_on_every_backend(backend: str, exported: tuple[Path, Path]):
    reference = MoPE.from_pretrained(exported[0], backend="torch")
    if backend == "triton":
        plain = [Request(request.prompt) for request in FEW]
        expected, got = tokens(reference, plain), triton(exported[0])
    else:
        expected, got = tokens(reference), tokens(MoPE.from_pretrained(exported[0], backend=backend))
    share = np.abs(got - expected) / np.maximum(expected, 1)
    largest, mean = TOLERANCE[backend]
    assert share.max() <= largest
    assert share.mean() <= mean


@pytest.mark.parametrize("kind", layout.KINDS)
def test_the_routed_graph_answers_as_predict_does(kind: str, exported: tuple[Path, Path]):
    """In one padded batch, every output; int8 there has scales of its own, so fp32 is the reference."""
    reference = MoPE.from_pretrained(exported[0], backend="torch")
    session = ort.InferenceSession(exported[0] / layout.onnx_file(layout.ROUTED, kind))
    found = ask_routed(session, reference, REQUESTS)
    forecasts = reference.predict(REQUESTS)
    largest, mean = TOLERANCE["onnx" if kind == "fp32" else f"onnx-{kind}"]
    for name in ("tokens", "low", "high", "quantiles"):
        expected = np.array([getattr(forecast, name) for forecast in forecasts])
        share = np.abs(found[name] - expected) / np.maximum(expected, 1)
        assert share.max() <= largest, name
        assert share.mean() <= mean, name
    chances = np.array([forecast.probabilities for forecast in forecasts])
    assert np.abs(found["probabilities"] - chances).max() <= {"fp32": 1e-5, "fp16": 0.01, "int8": 0.1}[kind]


@pytest.mark.parametrize("kind", layout.KINDS)
def test_a_row_of_the_routed_graph_does_not_depend_on_its_neighbours(kind: str, exported: tuple[Path, Path]):
    bundle = MoPE.from_pretrained(exported[0], backend="torch")
    session = ort.InferenceSession(exported[0] / layout.onnx_file(layout.ROUTED, kind))
    together = ask_routed(session, bundle, REQUESTS)["tokens"]
    alone = [ask_routed(session, bundle, [request])["tokens"][0] for request in REQUESTS]
    # fp16 is summed in another order where there is padding; so is fp32, which may tip an int8 level over
    assert np.allclose(together, alone, rtol={"fp32": 1e-4, "fp16": 5e-3, "int8": 2e-3}[kind])


@pytest.mark.parametrize("kind", layout.KINDS)
@pytest.mark.parametrize("routing", ["soft", "hard"])
def test_no_forecast_depends_on_its_neighbours(kind: str, routing: str, exported: tuple[Path, Path]):
    """To the last bit, on a CPU: every text is run alone."""
    bundle = MoPE.from_pretrained(exported[0], backend="onnx" if kind == "fp32" else f"onnx-{kind}")
    bundle.config = replace(bundle.config, routing=routing)
    twins = [*REQUESTS, *(replace(request, model="synthetic", max_tokens=50) for request in REQUESTS[:5])]
    together = tokens(bundle, twins)
    assert np.array_equal(tokens(bundle, twins[::-1])[::-1], together)
    assert np.allclose([bundle.predict(request).tokens for request in twins], together, rtol=1e-6)


def test_the_shipped_bundle_does_not_listen_to_neighbours():
    bundle = MoPE.from_pretrained()
    together = tokens(bundle, prompts())
    alone = [bundle.predict(request).tokens for request in prompts()]
    assert np.allclose(alone, together, rtol=1e-6)


@pytest.mark.parametrize("session", [Session(bind=True), Session(threads=2, spin=True), Session(threads=2)])
def test_binding_and_threads_change_nothing(session: Session, exported: tuple[Path, Path]):
    bundle = MoPE.from_pretrained(exported[0], backend="onnx")
    expected = tokens(bundle, FEW)
    bundle.backend = OnnxBackend(exported[0], bundle.config, kind="fp32", session=session)
    assert np.allclose(tokens(bundle, FEW), expected, rtol=1e-5)
    bundle.config = replace(bundle.config, routing="hard")
    assert np.isfinite(tokens(bundle, FEW)).all()


def test_in_one_batch_as_on_a_gpu(exported: tuple[Path, Path]):
    """What a GPU does, on the CPU: all texts padded into one run, subsets taken from it."""
    bundle = MoPE.from_pretrained(exported[0], backend="onnx")
    for routing in ("soft", "hard"):
        bundle.config = replace(bundle.config, routing=routing)
        expected = tokens(bundle)
        backend = OnnxBackend(exported[0], bundle.config, kind="fp32", session=Session(bind=True))
        backend._runs = lambda batch: [batch]  # type: ignore[method-assign]
        other = MoPE(bundle.folder, bundle.config, backend, bundle.tokenizer)
        other.calibration = bundle.calibration
        assert np.allclose(tokens(other), expected, rtol=1e-4)
