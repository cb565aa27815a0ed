"""A bundle: the same answers from every backend and after every copy, and a clear refusal of a broken one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mope.data.synthetic import synthetic
from mope.errors import BundleError, ConfigError, PromptError
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.config import BundleConfig
from mope.types import History, Request

REQUESTS = synthetic(60, seed=5).requests
# Tokens by which the median may move: float order of operations, then rounding of weights to eight bits.
TOLERANCE = {"torch": 1e-3, "onnx": 0.1, "onnx-int8": 25.0}


@pytest.mark.parametrize("backend", TOLERANCE)
@pytest.mark.parametrize("routing", ["hard", "soft"])
def test_every_backend_gives_the_same_answers(backend: str, routing: str, exported: tuple[Path, Path]):
    reference, other = (MoPE.from_pretrained(exported[0], backend=name) for name in ("torch", backend))
    assert other.backend.name == backend
    reference.config = other.config = replace(reference.config, routing=routing)
    expected = np.array([f.tokens for f in reference.predict(REQUESTS)])
    got = np.array([f.tokens for f in other.predict(REQUESTS)])
    assert np.abs(got - expected).mean() <= TOLERANCE[backend]
    if backend != "onnx-int8":  # an int8 router may send a borderline prompt to the other expert
        assert np.abs(got - expected).max() <= TOLERANCE[backend]


def test_one_by_one_is_all_at_once(exported: tuple[Path, Path]):
    bundle = MoPE.from_pretrained(exported[0], backend="torch")
    together = bundle.predict(REQUESTS)
    alone = [bundle.predict(request) for request in REQUESTS]
    assert np.allclose([f.tokens for f in together], [f.tokens for f in alone], rtol=1e-3)
    assert bundle.predict([]) == []


def test_a_forecast_is_consistent(tiny: Path):
    bundle = MoPE.from_pretrained(tiny)
    for forecast in bundle.predict(REQUESTS):
        assert forecast.low <= forecast.tokens <= forecast.high
        assert list(forecast.quantiles) == sorted(forecast.quantiles)
        assert forecast.quantiles[forecast.levels.index(0.5)] == forecast.tokens
        assert sum(forecast.probabilities) == pytest.approx(1, abs=1e-5)


def test_the_columns_that_evaluation_reads(tiny: Path):
    bundle = MoPE.from_pretrained(tiny)
    truth = np.array([1.0, 10_000.0] * 30)
    columns = bundle.columns(REQUESTS, truth)
    assert list(columns) == [
        "MoPE (routed, hard)", "MoPE (routed, soft)", "MoPE (oracle router)", "proxy",
        "constant", "surface GBDT", "context GBDT",
    ]  # fmt: skip
    oracle = columns["MoPE (oracle router)"].tokens
    assert oracle[::2].mean() < oracle[1::2].mean()
    assert columns["constant"].tokens.std() == 0
    assert "MoPE (oracle router)" not in bundle.columns(REQUESTS)


def test_saved_and_loaded_it_answers_the_same(tiny: Path, tmp_path: Path):
    bundle = MoPE.from_pretrained(tiny)
    bundle.save_pretrained(tmp_path / "copy")
    assert MoPE.from_pretrained(tmp_path / "copy").predict(REQUESTS) == bundle.predict(REQUESTS)
    assert not list((tmp_path / "copy").rglob("*.partial"))


def test_the_served_model_is_an_input(tmp_path: Path, train_tiny: Callable[..., Path]):
    """Two models, one ten times as wordy: the name decides."""
    from mope.data.records import Example, LengthData
    from mope.training.recipe import load_recipe
    from mope.training.train import train

    rows = [
        Example(replace(e.request, model=name), (max(1, e.lengths[0] * times),), e.group)
        for e in synthetic(400).examples
        for name, times in (("terse", 1), ("wordy", 10))
    ]
    folder = train(load_recipe("tiny", settings=["epochs.joint=0"]), LengthData(rows), tmp_path / "b")
    terse, wordy, unknown = MoPE.from_pretrained(folder).predict(
        [Request("Explain the weather", model=name) for name in ("terse", "wordy", "never seen")]
    )
    assert wordy.tokens > 3 * terse.tokens
    assert unknown.tokens > 0


def test_a_long_prompt_is_seen_as_training_saw_it(tiny: Path):
    from mope.data.values import shorten

    bundle, text = MoPE.from_pretrained(tiny), "Explain this: " + "word " * 5000
    history = History(prompts=(text,), lengths=(50,))
    long, short = bundle.predict(
        [
            Request(text, history=history),
            Request(shorten(text), history=History(prompts=(shorten(text),), lengths=(50,))),
        ]
    )
    assert len(shorten(text)) < len(text)
    assert long == short


def test_a_bad_prompt_is_named_by_its_place(tiny: Path):
    with pytest.raises(PromptError, match="prompt number 2: an empty prompt"):
        MoPE.from_pretrained(tiny).predict(["fine", " "])


def test_what_is_not_a_bundle(tiny: Path, tmp_path: Path):
    with pytest.raises(BundleError, match=r"config\.json"):
        MoPE.from_pretrained(tmp_path)
    with pytest.raises(BundleError, match="check the path"):
        MoPE.from_pretrained(tmp_path / "none")
    with pytest.raises(ConfigError, match="backend"):
        MoPE.from_pretrained(tiny, backend="tpu")


def spoil(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


@pytest.fixture
def copy(exported: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[1], tmp_path / "copy"))


@pytest.mark.parametrize("name", ["router.safetensors", "tokenizer.json", "onnx/int8/trunk.onnx"])
@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b[:-9] + b"tampered!"])
def test_a_changed_weight_file_is_refused(name: str, change: Callable[[bytes], bytes], copy: Path):
    spoil(copy, name, change)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        MoPE.from_pretrained(copy)


def edited(config: Path, **changes: object) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 99}, "format 99"), ({"format": None}, "format None"), ({"surprise": 1}, "surprise"),
        ({"quantiles": [0.5]}, "quantiles"), ({"quantiles": "all"}, "quantiles"), ({"bounds": 3}, "bounds"),
        ({"shared_layers": 10**12}, "shared_layers"), ({"shared_layers": 7}, "shared_layers"),
        ({"router": "x"}, "router"),
        ({"encoder": {"hidden_size": 10**9}}, "hidden_size"), ({"text": {"prompt_head": 5000}}, "text"),
        ({"features": ["age"]}, "features"), ({"files": {"../../secret": "0"}}, "secret"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be(changes: dict[str, object], words: str, copy: Path):
    edited(copy / "config.json", **changes)
    with pytest.raises(BundleError, match=words):
        MoPE.from_pretrained(copy)


def test_a_link_out_of_the_bundle_is_refused(copy: Path, tmp_path: Path):
    outside = tmp_path / "outside.safetensors"
    shutil.move(copy / "router.safetensors", outside)
    (copy / "router.safetensors").symlink_to(outside)
    with pytest.raises(BundleError, match="outside"):
        MoPE.from_pretrained(copy)


def test_config_round_trip(tiny: Path):
    config = MoPE.from_pretrained(tiny).config
    assert BundleConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quantiles": [0.1, 0.5, 0.9]}, "outputs of shape"),  # the graphs give thirteen
        ({"shared_layers": 0}, "does not fit config"),  # the experts' graphs read hidden states, not ids
        ({"encoder": {"vocab_size": 5}}, "ids beyond 5"),
    ],
)
def test_a_config_of_another_bundle_is_noticed_when_it_predicts(
    changes: dict[str, object], words: str, copy: Path
):
    edited(copy / "config.json", **changes)
    with pytest.raises(BundleError, match=words):
        MoPE.from_pretrained(copy).predict("hello")


@pytest.mark.parametrize("index", [10**6, 2**31, 2**32 - 1])
def test_a_tokenizer_with_ids_that_the_encoder_lacks(index: int, copy: Path):
    raw = json.loads((copy / "tokenizer.json").read_text())
    raw["model"]["vocab"]["hello"] = index
    (copy / "tokenizer.json").write_text(json.dumps(raw))
    edited(copy / "config.json", files={})
    with pytest.raises(BundleError, match="ids beyond"):
        MoPE.from_pretrained(copy).predict("hello")


def test_weights_that_are_no_numbers(tiny: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny, tmp_path / "nan", ignore=shutil.ignore_patterns("run")))
    arrays = layout.read_arrays(folder, "experts/long.safetensors")
    arrays["head.out.bias"] = arrays["head.out.bias"] * np.float32("nan")
    layout.write_arrays(folder / "experts" / "long.safetensors", arrays)
    edited(folder / "config.json", files={})
    bundle = MoPE.from_pretrained(folder, backend="torch")
    with pytest.raises(BundleError, match="network long with outputs that are no numbers"):
        bundle.columns(REQUESTS)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_counted_from_one(threads: int, tiny: Path):
    with pytest.raises(ConfigError, match=f"{threads} threads"):
        MoPE.from_pretrained(tiny, threads=threads)


def test_a_bundle_in_the_hubs_cache(exported: tuple[Path, Path], tmp_path: Path):
    """There, every file is a link to a blob."""
    blobs, snapshot = tmp_path / "m" / "blobs", tmp_path / "m" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in exported[1].rglob("*") if p.is_file())):
        link = snapshot / path.relative_to(exported[1])
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    cached = MoPE.from_pretrained(snapshot)
    assert cached.predict(REQUESTS) == MoPE.from_pretrained(exported[1]).predict(REQUESTS)
    cached.save_pretrained(tmp_path / "copy")
    assert not any(path.is_symlink() for path in (tmp_path / "copy").rglob("*"))
    assert MoPE.from_pretrained(tmp_path / "copy").predict(REQUESTS) == cached.predict(REQUESTS)


def test_the_base_install_is_enough(exported: tuple[Path, Path]):
    """Forecasting with ONNX graphs loads nothing of the extras."""
    code = (
        f"import sys; from mope import MoPE; MoPE.from_pretrained({str(exported[1])!r}).predict('hello');"
        "print(sorted({'torch', 'transformers', 'sklearn', 'pandas', 'datasets', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
