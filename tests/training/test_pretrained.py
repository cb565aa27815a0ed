"""Where an encoder starts: weights that load, and weights that are told to be unusable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from mope.data.synthetic import synthetic
from mope.errors import ConfigError
from mope.predictor.bundle import MoPE
from mope.predictor.config import EncoderConfig
from mope.predictor.encoder import Stack
from mope.training.pretrained import encoder_of, find_weights, load_weights, make_tokenizer
from mope.training.recipe import Recipe, WeightsConfig, load_recipe
from mope.training.train import train

SHAPE = EncoderConfig(16, 3, 2, 32, vocab_size=60, max_position_embeddings=128)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
WORDS += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A small random BERT as transformers saves one: prefixes, position ids, a head that is not ours."""
    torch.manual_seed(1)
    folder = tmp_path / "bert"
    folder.mkdir()
    own = Stack(SHAPE, 0, SHAPE.num_hidden_layers).state_dict()
    names = {name: f"bert.{name}" if "embed" in name else f"bert.encoder.{name}" for name in own}
    tensors = {new: own[old].contiguous() for old, new in names.items()}
    extra = {"bert.embeddings.position_ids": torch.arange(128), "cls.predictions.bias": torch.zeros(60)}
    save_file(tensors | extra, folder / "model.safetensors")
    shape = {name: getattr(SHAPE, name) for name in EncoderConfig.__dataclass_fields__}
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_act": "gelu", **shape}))
    model = WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    (folder / "tokenizer.json").write_text(Tokenizer(model).to_str())
    return folder


@pytest.fixture
def recipe(bert: Path, quick: tuple[str, ...]) -> Callable[..., Recipe]:
    return lambda *settings: load_recipe("tiny", settings=(*quick, f"weights.source={bert}", *settings))


@pytest.mark.parametrize(("layers", "shared"), [(2, 1), (3, 0)])
def test_a_folder_of_weights_trains_with_the_depth_of_the_recipe(
    layers: int, shared: int, recipe: Callable[..., Recipe], bert: Path, tmp_path: Path
):
    asked = recipe(f"encoder.num_hidden_layers={layers}", f"shared_layers={shared}", "epochs.joint=0")
    folder = train(asked, synthetic(300), tmp_path / "b")
    bundle = MoPE.from_pretrained(folder)
    assert (bundle.config.encoder.hidden_size, bundle.config.encoder.num_hidden_layers) == (16, layers)
    assert bundle.predict("hello").tokens > 0
    proxy = load_file(folder / "proxy.safetensors")
    assert {int(k.split(".")[2]) for k in proxy if ".layer." in k} == set(range(shared, layers))
    # The embeddings are never trained, so they still are those of the folder.
    mine = load_file(folder / ("trunk.safetensors" if shared else "proxy.safetensors"))
    word = next(mine[k] for k in mine if k.endswith("word_embeddings.weight"))
    assert torch.equal(word, load_weights(bert)["embeddings.word_embeddings.weight"])


def test_weights_have_the_names_of_our_stack(bert: Path):
    own = Stack(SHAPE, 0, SHAPE.num_hidden_layers).state_dict()
    assert set(load_weights(bert)) == set(own)


def test_old_names_of_layer_norm_are_understood(bert: Path):
    tensors = load_file(bert / "model.safetensors")
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
           for k, v in tensors.items()}  # fmt: skip
    assert set(old) != set(tensors)
    before = load_weights(bert)
    save_file(old, bert / "model.safetensors")
    after = load_weights(bert)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_every_place_that_was_tried_is_told(bert: Path, tmp_path: Path):
    (bert / "tokenizer.json").unlink()
    (bert / "config.json").unlink()
    with pytest.raises(ConfigError) as caught:
        find_weights(WeightsConfig(str(bert), "package:no_such_package_of_ours"))
    for words in (str(bert), "lacks tokenizer.json, config.json", "no_such_package_of_ours", "not installed"):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["package:", "package:a.b.c", "package:json"])
def test_packages_without_weights(name: str):
    with pytest.raises(ConfigError, match="no pretrained weights"):
        find_weights(WeightsConfig(name))


def test_the_fallback_is_taken_where_the_source_cannot_be_had(bert: Path):
    assert find_weights(WeightsConfig("package:no_such_package_of_ours", str(bert))) == bert
    assert find_weights(WeightsConfig("", str(bert))) is None


def _config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | changes))

    return change


def _text(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _without_a_layer(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if ".layer.1." not in k}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_config(model_type="distilbert"), "type 'distilbert' in bert"),
        (_config(model_type=None), "type None"),
        (_config(num_hidden_layers=1), "2 layers asked for.*at most the 1"),
        (_config(hidden_size="16"), "hidden_size = '16'"),
        (_config(hidden_size=32), r"shape \(60, 16\).*\(60, 32\)"),
        (_text("config.json", "{"), "not JSON"),
        (_text("config.json", "[]"), "no object"),
        (_text("tokenizer.json", "{}"), "tokenizer.json in bert cannot be read"),
        (_text("model.safetensors", ""), "cannot be read"),
        (_cut, "weights in bert cannot be read"),
        (_without_a_layer, "pretrained weights without layer.1"),
    ],
)
def test_a_folder_that_is_not_usable_is_told_and_nothing_is_trained(
    damage: Callable[[Path], object], words: str, recipe: Callable[..., Recipe], bert: Path, tmp_path: Path
):
    damage(bert)
    with pytest.raises(ConfigError, match=words):
        train(recipe(), synthetic(300), tmp_path / "b")
    assert not list((tmp_path / "b").rglob("proxy*"))


def test_without_weights_the_shape_is_the_recipes_and_words_are_learned_alike():
    recipe = load_recipe("tiny", settings=["weights.vocab_words=300"])
    assert encoder_of(None, recipe.encoder) == recipe.encoder
    texts = ["the cat sat on the mat", "the dog sat", "Ünïcode and 数字"]
    one, two = (make_tokenizer(None, recipe, iter(order)) for order in (texts, texts[::-1]))
    assert one.get_vocab() == two.get_vocab()
    assert one.get_vocab_size() <= 300
    assert one.encode("the cat").tokens == ["the", "cat"]
    assert one.token_to_id("[PAD]") == 0
