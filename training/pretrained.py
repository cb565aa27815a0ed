"""Where an encoder starts: a folder, a package that carries weights, the Hub, or nothing (random)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

from mope.errors import ConfigError
from mope.predictor.config import EncoderConfig
from mope.training.recipe import Recipe, WeightsConfig

PACKAGE = "package:"
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NEEDED = ("model.safetensors", "tokenizer.json", "config.json")


def find_weights(weights: WeightsConfig) -> Path | None:
    """The folder with pretrained weights, None for a random start.

    Raises `ConfigError` naming every place that was tried.
    """
    if not weights.source:
        return None
    tried = []
    for place in filter(None, (weights.source, weights.fallback)):
        folder, why = _find(place)
        if folder is not None:
            return folder
        tried.append(f"{place} ({why})")
    raise ConfigError(
        f"no pretrained weights at {', '.join(tried)}",
        f"a folder with {', '.join(NEEDED)}, a package that carries one, or a Hub id that can be reached",
        "download the model and give its folder with --set weights.source=FOLDER",
    )


def _find(place: str) -> tuple[Path | None, str]:
    if place.startswith(PACKAGE):
        name = place.removeprefix(PACKAGE)
        spec = find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            return None, "package not installed"
        return _complete(Path(spec.submodule_search_locations[0]) / "model")
    if Path(place).is_dir():
        return _complete(Path(place))
    return _from_hub(place)


def _complete(folder: Path) -> tuple[Path | None, str]:
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    return (None, f"lacks {', '.join(missing)}") if missing else (folder, "")


def _from_hub(place: str) -> tuple[Path | None, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return _complete(Path(snapshot_download(place, allow_patterns=list(NEEDED))))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        return None, f"not to be had from the Hub: {type(error).__name__}"


def encoder_of(folder: Path | None, asked: EncoderConfig) -> EncoderConfig:
    """The shape to build: widths from the weights' config.json, depth from the recipe."""
    if folder is None:
        return asked
    raw = _config(folder)
    if raw.get("model_type") != "bert":
        raise ConfigError(f"weights of type {raw.get('model_type')!r} in {folder.name}", "a BERT encoder")
    same = {name: raw[name] for name in EncoderConfig.__dataclass_fields__ if name in raw}
    wrong = [name for name, value in same.items() if type(value) is not int]
    if wrong:
        raise ConfigError(f"{wrong[0]} = {same[wrong[0]]!r} in {folder.name}", "a whole number")
    depth = same.get("num_hidden_layers", 0)
    if asked.num_hidden_layers > depth:
        raise ConfigError(
            f"{asked.num_hidden_layers} layers asked for", f"at most the {depth} of the weights"
        )
    return replace(EncoderConfig(**same), num_hidden_layers=asked.num_hidden_layers)


def _config(folder: Path) -> dict[str, Any]:
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"config.json in {folder.name} is not JSON ({error})", "a BERT encoder") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"config.json in {folder.name} holds no object", "a BERT encoder")
    return raw


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Encoder tensors by the names of `Stack`: embeddings.* and layer.N.*."""
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                name = key.removeprefix("bert.").removeprefix("encoder.")
                if name.startswith(("embeddings.", "layer.")) and not name.endswith("position_ids"):
                    tensors[name.replace(".gamma", ".weight").replace(".beta", ".bias")] = file.get_tensor(
                        key
                    )
    except SafetensorError as error:
        raise ConfigError(
            f"weights in {folder.name} cannot be read ({error})", "a whole safetensors file"
        ) from None
    return tensors


def make_tokenizer(folder: Path | None, recipe: Recipe, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer of the weights, or WordPiece learned from `texts` where there are none."""
    if folder is not None:
        tokenizer = _read_tokenizer(folder)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    size = min(recipe.weights.vocab_words, recipe.encoder.vocab_size)
    tokenizer = Tokenizer(models.WordPiece(_vocabulary(words, size), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    return tokenizer


def _read_tokenizer(folder: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001 - the library raises bare Exception
        raise ConfigError(
            f"tokenizer.json in {folder.name} cannot be read ({error})", "a tokenizer file"
        ) from None


def _vocabulary(words: Counter[str], size: int) -> dict[str, int]:
    """Special tokens, the most frequent characters (alone and inside words), then the most frequent words.

    The library's own trainer breaks ties by hash order: two runs of one seed would differ.
    """
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            letters[character] += count
    pieces = [p for c in _ranked(letters)[: size // 8] for p in (c, f"##{c}")]
    return {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIALS, *pieces, *_ranked(words)][:size]))}


def _ranked(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda item: (-counts[item], item))
