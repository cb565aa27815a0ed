"""The bundle inside the package: small, whole, measured, and it answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mope import MoPE
from mope.types import Request

LIMIT = 48 * 1024 * 1024


@pytest.fixture(scope="module")
def shipped() -> MoPE:
    return MoPE.from_pretrained()


def test_it_is_small_and_has_no_pytorch_weights(shipped: MoPE):
    files = [p for p in shipped.folder.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < LIMIT
    assert shipped.backend.name == "onnx-int8"
    assert {p.suffix for p in files} <= {".json", ".onnx", ".safetensors", ".md"}


def test_all_weights_are_hashed(shipped: MoPE):
    files = {p.relative_to(shipped.folder).as_posix() for p in shipped.folder.rglob("*")}
    weights = {name for name in files if name.endswith((".onnx", ".safetensors")) or name == "tokenizer.json"}
    assert set(shipped.config.files) == weights


def test_its_forecasts_make_sense(shipped: MoPE):
    word, essay = shipped.predict(
        [
            "What is the capital of France? Answer in one word.",
            "Write a detailed 2000-word essay on the First World War.",
        ]
    )
    assert word.tokens < 60
    assert essay.tokens > 400
    assert word.high < essay.low


def test_the_served_model_matters(shipped: MoPE):
    prompt = "Explain how photosynthesis works."
    known = shipped.predict([Request(prompt, model=name) for name in shipped.config.models])
    assert len(known) > 100
    assert max(f.tokens for f in known) > 2 * min(f.tokens for f in known)


def test_it_was_trained_only_on_what_may_be_shipped(shipped: MoPE):
    facts = json.loads(Path(shipped.folder / "facts.json").read_text())
    allowed = {
        "alpaca_eval", "oasst_sampling", "gpteacher_roleplay", "gpteacher_codegen", "halueval_general",
        "hh_harmless_test",
        "Alpaca", "DollyDataset", "ShareGPT", "Mbpp", "Apps", "DS1000", "BigCodeBench",  # castillo's data sets
    }  # fmt: skip
    assert set(facts["data"]["sources"]) <= allowed


def test_its_facts_are_measured(shipped: MoPE):
    facts = json.loads(Path(shipped.folder / "facts.json").read_text())
    columns = {row["name"]: row["metrics"] for row in facts["evaluation"]["columns"]}
    assert columns["MoPE (routed, soft)"]["mae"]["value"] < 0.8 * columns["constant"]["mae"]["value"]
