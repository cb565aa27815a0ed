from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mope.bench.kernels import run, side_by_side
from mope.bench.kernels.passes import Case
from mope.bench.kernels.timing import Budget
from mope.cli import build_app
from mope.data.synthetic import synthetic
from mope.errors import ConfigError
from mope.predictor.bundle import MoPE
from mope.predictor.config import EncoderConfig

QUICK = Budget(repeats=2, seconds=1.0)


@pytest.fixture
def small(monkeypatch):
    """One small encoder and one batch instead of those of the papers."""
    monkeypatch.setattr(run, "SHAPES", {"small": EncoderConfig(32, 2, 2, 48, 50, 64)})
    monkeypatch.setattr(run, "grid", lambda on_gpu: [Case(2, 8, "soft")])


def test_one_document_of_everything(tiny: Path, small, monkeypatch):
    heard = []
    monkeypatch.setattr("mope.bench.kernels.onnx.find_spec", lambda name: None)
    found = run.bench_kernels(str(tiny), synthetic(30, seed=3), budget=QUICK, log=heard.append)
    assert json.loads(json.dumps(found)) == found
    assert set(found) >= {
        "device",
        "roofline",
        "ops",
        "passes",
        "forecasts",
        "callers",
        "accuracy",
        "numerics",
    }
    assert found["device"]["versions"]["torch"]
    assert found["forecasts"]["soft, batch 1"]["torch"]["calls"] == 2
    assert found["forecasts"]["soft, batch 1"]["cpu_p50_ms over eager torch"] == {"torch": 1.0}
    assert found["host"]["soft, batch 32"]["calls"] == 2
    assert found["accuracy"]["torch"]["minus torch"] == 0
    assert found["callers"]["torch"]["calls"] == 32 * 30
    assert found["callers"]["torch"]["mean_batch"] > 1
    assert len(heard) >= 4


def test_an_unknown_shape(tiny: Path):
    with pytest.raises(ConfigError, match="one of bert-base, minilm"):
        run.bench_kernels(str(tiny), synthetic(3), shapes=["huge"])
    with pytest.raises(ConfigError, match="one of roofline, ops"):
        run.bench_kernels(str(tiny), synthetic(3), only=["everything"])


def test_only_what_is_asked(tiny: Path):
    found = run.bench_kernels(str(tiny), synthetic(12), only=["roofline"])
    assert set(found) == {"device", "roofline", "device_after"}


def test_accuracy_is_told_beside_the_first_backend(tiny: Path):
    class Off:
        """The same bundle, ten tokens above it."""

        def __init__(self, inner: MoPE) -> None:
            self.inner = inner

        def predict(self, request):
            from dataclasses import replace

            known = self.inner.predict(request)
            return replace(known, tokens=known.tokens + 1e6)

    bundle = MoPE.from_pretrained(tiny, backend="torch")
    found = side_by_side.accuracy({"torch": bundle, "off": Off(bundle)}, synthetic(40, seed=2))
    assert found["off"]["minus torch"] == pytest.approx(1e6, rel=0.01)
    assert found["off"]["low"] <= found["off"]["minus torch"] <= found["off"]["high"]


def test_the_command_prints_one_document(tiny: Path, small, monkeypatch):
    monkeypatch.setattr("mope.bench.kernels.onnx.find_spec", lambda name: None)
    monkeypatch.setattr(side_by_side, "callers", lambda *_: {})
    words = ["bench", "kernels", str(tiny), "--rows", "12", "--repeats", "1", "--json"]
    done = CliRunner().invoke(build_app(), words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["roofline"]["small, 0 shared layers, 1 x 128, hard"]["launches"] == 12
    assert "accuracy" not in found
