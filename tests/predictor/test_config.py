"""config.json: what was written is read again, and whatever else stands there is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.data.split import Bounds
from mope.errors import BundleError
from mope.predictor.config import MAX_SEED, BundleConfig, EncoderConfig, TextConfig

CONFIG = BundleConfig(
    Bounds(10, 100.5, 1000), preset="minilm", router="both", routing="hard", shared_layers=2,
    text=TextConfig(8, 4, 2, 1), encoder=EncoderConfig(32, 3, 4, 48, 50, 40, 2), features=("a", "b"),
    models=("m",), tokenizer="t", data_hash="d", seed=MAX_SEED, files={"router.safetensors": "00"},
)  # fmt: skip


def changed(path: str, value: Any) -> str:
    """The config's text with one value replaced; a dot goes into a part."""
    raw = json.loads(CONFIG.to_json())
    *parts, key = path.split(".")
    place = raw
    for part in parts:
        place = place[part]
    place[key] = value
    return json.dumps(raw)


def test_round_trip():
    assert BundleConfig.from_json(CONFIG.to_json()) == CONFIG


def test_only_bounds_and_format_must_be_there():
    assert BundleConfig.from_json(
        '{"format": 1, "bounds": {"short": 1, "medium": 2, "cap": 3}}'
    ) == BundleConfig(Bounds(1, 2, 3))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"', "[" * 100_000, '{"format": 1}', "NaN"])
def test_what_is_no_config(text: str):
    with pytest.raises(BundleError):
        BundleConfig.from_json(text)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("format", 2, "bundle format 2"), ("format", True, "format is True"), ("surprise", 1, "surprise"),
        ("bounds.surprise", 1, "surprise"), ("encoder.surprise", 1, "surprise"), ("text", [], "text is list"),
        ("bounds", None, "bounds is NoneType"), ("seed", 1.5, "seed"), ("seed", -1, "seed"), ("seed", "1", "seed"),
        ("seed", MAX_SEED + 1, "seed"), ("preset", 3, "preset"), ("models", "m", "models"), ("models", [3], "models"),
        ("files", [], "files"), ("files", {"a": 1}, "files"), ("quantiles", [], "quantiles"),
        ("quantiles", [0.9, 0.5, 0.1], "quantiles"), ("quantiles", [0.2, 0.5, 0.9], "0.1 and 0.9"),
        ("quantiles", [0.1, 0.5, 0.9, 1.0], "quantiles"), ("quantiles", [0.1, 0.5, 0.9, 10**400], "quantiles"),
        ("quantiles", [0.1, 0.5, 0.9, float("nan")], "quantiles"), ("quantiles", [True], "quantiles"),
        ("bounds.short", float("nan"), "short"), ("bounds.cap", float("inf"), "cap"), ("bounds.cap", 10**400, "cap"),
        ("bounds.short", 200, "short 200"), ("bounds.short", -1, "short -1"), ("bounds.percentiles", [1], "percent"),
        ("router", "hexagonal", "router"), ("routing", "", "routing"), ("shared_layers", 3, "shared_layers 3"),
        ("encoder.hidden_size", 33, "heads"), ("encoder.hidden_size", 10**9, "hidden_size"),
        ("encoder.num_attention_heads", 0, "size of 0"), ("encoder.vocab_size", 0, "size of 0"),
        ("encoder.num_hidden_layers", 999_999, "999999 layers"), ("text.prompt_head", 39, "text of"),
        ("text.prompt_head", -1, "prompt_head"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be(path: str, value: Any, words: str):
    with pytest.raises(BundleError, match=words):
        BundleConfig.from_json(changed(path, value))


PATHS = [
    *json.loads(CONFIG.to_json()),
    *(
        f"{part}.{key}"
        for part in ("bounds", "text", "encoder")
        for key in json.loads(CONFIG.to_json())[part]
    ),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(PATHS), VALUES)
def test_any_other_value_is_refused_or_kept(path: str, value: Any):
    try:
        config = BundleConfig.from_json(changed(path, value))
    except BundleError:
        return
    assert BundleConfig.from_json(config.to_json()) == config
