"""Training from end to end at toy size, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from mope.data.records import Example, LengthData
from mope.data.synthetic import synthetic
from mope.errors import ConfigError, DataError, TrainingError
from mope.predictor.bundle import MoPE
from mope.training import stages
from mope.training.recipe import Recipe, load_recipe
from mope.training.train import train
from mope.types import BUCKETS, Request


@pytest.fixture
def recipe(quick: tuple[str, ...]) -> Callable[..., Recipe]:
    return lambda *settings: load_recipe("tiny", settings=(*quick, *settings))


def test_a_bundle_holds_every_file_and_its_facts(tiny: Path):
    names = {p.relative_to(tiny).as_posix() for p in tiny.rglob("*") if p.is_file() and "run" not in p.parts}
    assert names == {
        "config.json", "calibration.json", "tokenizer.json", "facts.json", "router.safetensors", "floors.safetensors",
        "trunk.safetensors", "proxy.safetensors", "router/encoder.safetensors",
        *(f"experts/{bucket}.safetensors" for bucket in BUCKETS),
    }  # fmt: skip
    facts = json.loads((tiny / "facts.json").read_text())
    assert facts["data"]["examples"]["train"] > 300
    assert facts["seconds"] > 0
    assert facts["peak_memory_bytes"] > 10_000_000
    assert facts["versions"]["torch"] != "not installed"
    assert set(facts["stages"]) == {
        "proxy", "proxy_tower", "router", *(f"expert-{bucket}" for bucket in BUCKETS), "joint",
    }  # fmt: skip
    assert json.loads((tiny / "run" / "recipe.json").read_text())["preset"] == "tiny"
    assert list((tiny / "run" / "stages").glob("proxy-*/log/version_0/metrics.csv"))


def test_the_chosen_way_of_answering_is_the_best_on_validation(tiny: Path):
    scores = json.loads((tiny / "facts.json").read_text())["validation"]
    config = MoPE.from_pretrained(tiny).config
    best = min((k for k in scores if k != "proxy"), key=scores.__getitem__)
    assert best.split(", ")[1:] == [config.router, config.routing]


def test_a_model_learns_what_the_data_holds(recipe: Callable[..., Recipe], tmp_path: Path):
    """Long answers follow the word "essay", short ones "word": a bundle that ignores the prompt fails."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(600):
        kind = i % 3
        word = ("word", "paragraph", "essay")[kind]
        length = int((10, 100, 800)[kind] * rng.uniform(0.9, 1.1))
        examples.append(Example(Request(prompt=f"Write one {word} about topic {i}"), (length,), group=str(i)))
    folder = train(recipe("epochs.proxy=4", "epochs.experts=2"), LengthData(examples), tmp_path / "b")
    short, long = MoPE.from_pretrained(folder).predict(
        ["Write one word about rain", "Write one essay about rain"]
    )
    assert short.tokens < 40
    assert long.tokens > 400
    assert (short.bucket, long.bucket) == ("short", "long")


def test_same_seed_same_bundle(tiny: Path, train_tiny: Callable[..., Path], tmp_path: Path):
    again = train_tiny(tmp_path / "again")
    assert weights(again) == weights(tiny)


def test_a_disk_that_fills_while_a_stage_is_closed(
    recipe: Callable[..., Recipe], tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(stages, "save_file", full)
    with pytest.raises(TrainingError, match=r"disk is full.*--resume"):
        train(recipe(), synthetic(700), tmp_path / "b")
    assert not (tmp_path / "b" / "config.json").exists()
    monkeypatch.undo()
    train(recipe(), synthetic(700), tmp_path / "b", resume=True)
    assert weights(tmp_path / "b") == weights(tiny)


@pytest.mark.parametrize("name", ["floors.safetensors", "router.safetensors"])
def test_damaged_floors_are_fitted_again(
    name: str, tiny: Path, recipe: Callable[..., Recipe], tmp_path: Path
):
    folder = tmp_path / "b"
    shutil.copytree(tiny, folder)
    (kept,) = folder.glob(f"run/stages/floors-*/{name}")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-9])
    train(recipe(), synthetic(700), folder, resume=True)
    assert kept.read_bytes() == whole
    assert weights(folder) == weights(tiny)


def weights(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if (p.suffix == ".safetensors" or p.name == "calibration.json") and "run" not in p.parts
    }


@pytest.mark.parametrize(
    "settings",
    [
        ("shared_layers=0", "epochs.joint=0"),
        ("router=lexical", "epochs.joint=0"),
        ("overlap=0.5",),
        ("optim.accumulate=2",),
    ],
)
def test_other_shapes_train_and_predict(
    settings: tuple[str, ...], train_tiny: Callable[..., Path], tmp_path: Path
):
    folder = train_tiny(tmp_path / "b", 500, settings)
    assert MoPE.from_pretrained(folder).predict("hello there").tokens > 0


def test_several_answers_are_one_prompt(recipe: Callable[..., Recipe], tmp_path: Path):
    base = synthetic(300)
    several = LengthData(
        [Example(e.request, (*e.lengths, *(n + 3 for n in e.lengths)), e.group) for e in base.examples]
    )
    folder = train(recipe(), several, tmp_path / "b")
    assert MoPE.from_pretrained(folder).predict("hello").tokens > 0


def test_a_full_output_folder_is_left_alone(recipe: Callable[..., Recipe], tmp_path: Path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        train(recipe(), synthetic(300), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_too_few_rows(recipe: Callable[..., Recipe], tmp_path: Path):
    with pytest.raises(DataError, match="at least"):
        train(recipe(), synthetic(12), tmp_path / "b")
    assert not (tmp_path / "b" / "config.json").exists()


def test_one_class_data(recipe: Callable[..., Recipe], tmp_path: Path):
    same = LengthData([Example(e.request, (7,), e.group) for e in synthetic(300).examples])
    with pytest.raises(DataError, match="one-class"):
        train(recipe(), same, tmp_path / "b")


def test_an_empty_bucket(recipe: Callable[..., Recipe], tmp_path: Path):
    rows = [
        Example(e.request, (7 if i % 50 else 900,), e.group) for i, e in enumerate(synthetic(300).examples)
    ]
    with pytest.raises(DataError, match="empty bucket"):
        train(recipe(), LengthData(rows), tmp_path / "b")
