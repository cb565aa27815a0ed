"""Recipes: presets load, files and settings lie over them in order, what is unknown is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mope.errors import ConfigError
from mope.training.recipe import load_recipe, presets


def test_every_preset_loads_under_its_own_name():
    assert presets() == ["bert-base", "minilm", "minilm-3", "shipped", "tiny"]
    for name in presets():
        assert load_recipe(name).preset == name


def test_the_papers_preset_gives_every_expert_an_encoder_of_its_own():
    recipe = load_recipe("bert-base")
    assert (recipe.shared_layers, recipe.encoder.hidden_size, recipe.encoder.num_hidden_layers) == (
        0,
        768,
        12,
    )
    assert recipe.weights.source == "google-bert/bert-base-uncased"


def test_a_file_lies_over_the_preset_and_settings_over_both(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text("seed = 3\n[optim]\nbatch = 5\nlr = 1\n")
    recipe = load_recipe("tiny", file, ["optim.batch=6", "percentiles=25,75,95"])
    assert (recipe.seed, recipe.optim.batch, recipe.optim.lr, recipe.percentiles) == (3, 6, 1.0, (25, 75, 95))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense = 1", "unknown key 'nonsense'"),
        ("[optim]\nrate = 1", "unknown key 'rate'"),
        ("seed = 'one'", "seed = 'one'"),
        ("optim = 3", "optim = 3"),
        ("seed = = 1", "not TOML"),
        ("router = 'oracle'", "router 'oracle'"),
        ("routing = 'oracle'", "routing 'oracle'"),
        ("seed = -1", "seed -1"),
        ("sampling_dropout = 1.5", "sampling_dropout 1.5"),
        ("model_dropout = -0.1", "model_dropout -0.1"),
        ("shared_layers = 9", "shared_layers 9"),
        ("frozen_layers = 9", "frozen_layers 9"),
        ("[optim]\nbatch = 0", "below 1"),
        ("[epochs]\nproxy = 0", "no epochs"),
        ("router = 'lexical'", "joint training without"),
    ],
)
def test_what_a_recipe_may_not_say(text: str, words: str, tmp_path: Path):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_recipe("tiny", file)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="tiny"):
        load_recipe("huge")


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError, match="readable"):
        load_recipe(None, tmp_path / "none.toml")
