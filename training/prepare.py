"""From data to what stages read: parts, bounds, tokenizer, arrays, the bundle's config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import mope
from mope.data.records import LengthData
from mope.data.split import Bounds, split
from mope.errors import DataError
from mope.predictor.config import BundleConfig
from mope.predictor.features import ALL, NAMES, matrix, with_sampling
from mope.predictor.inputs import build_inputs
from mope.training.feed import Part, make_part
from mope.training.origin import Origin
from mope.training.pretrained import encoder_of, find_weights, make_tokenizer
from mope.training.recipe import Recipe

MIN_ROWS = 8  # fewer in any part cannot be split, trained and calibrated on


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything a run knows before it trains. `recipe` has the encoder's real shape; `parts` leaves out the test."""

    recipe: Recipe
    digest: str
    split: dict[str, LengthData]
    bounds: Bounds
    weights: Path | None
    tokenizer: Tokenizer
    config: BundleConfig
    parts: dict[str, Part]


def prepare(recipe: Recipe, data: LengthData, origin: Origin | None = None) -> Prepared:
    """Split, fit bounds, find weights and tokenizer (or take those of `origin`), turn rows into arrays.

    Raises `DataError` for data that cannot be split into parts and buckets, `ConfigError` for weights that are
    not there.
    """
    rows = _split(data)
    bounds = Bounds.fit(rows["train"].lengths, recipe.percentiles)
    digest, weights = data.digest(), None
    if origin is not None:
        recipe, tokenizer = origin.shape(recipe), origin.tokenizer
    else:
        weights = find_weights(recipe.weights)
        recipe = replace(recipe, encoder=encoder_of(weights, recipe.encoder))
        tokenizer = make_tokenizer(weights, recipe, (r.prompt[:2000] for r in rows["train"].requests))
    config = _config(recipe, rows["train"], bounds, digest)
    if origin is not None:
        config = origin.config_of(config)
    parts = {
        name: _part(part, tokenizer, config, recipe.censored) for name, part in rows.items() if name != "test"
    }
    capped = np.minimum(parts["train"].lengths, np.float32(bounds.cap))
    parts["train"] = replace(parts["train"], lengths=capped)
    return Prepared(recipe, digest, rows, bounds, weights, tokenizer, config, parts)


def _split(data: LengthData) -> dict[str, LengthData]:
    indices = split(data)
    small = {part: len(rows) for part, rows in indices.items() if len(rows) < MIN_ROWS}
    if small:
        raise DataError(
            f"{len(data)} examples, of which the parts {small}",
            f"at least {MIN_ROWS} in each part",
            "give more data",
        )
    return {part: data.take(rows) for part, rows in indices.items()}


def _config(recipe: Recipe, train: LengthData, bounds: Bounds, digest: str) -> BundleConfig:
    names, counts = np.unique(train.models, return_counts=True)
    models = tuple(str(n) for n, c in zip(names, counts, strict=True) if n and c >= recipe.min_model_rows)
    told = any(r.temperature is not None or r.top_p is not None for r in train.requests)
    features = ALL if told and recipe.sampling else NAMES
    return BundleConfig(
        bounds=bounds, preset=recipe.preset, mope_version=mope.__version__, quantiles=recipe.quantiles,
        router=recipe.router, routing="soft" if recipe.routing == "auto" else recipe.routing,
        shared_layers=recipe.shared_layers, text=recipe.text, encoder=recipe.encoder, features=features,
        models=models if len(models) > 1 or recipe.origin else (), tokenizer=recipe.weights.source or "learned",
        data_hash=digest, seed=recipe.seed,
    )  # fmt: skip


def _part(data: LengthData, tokenizer: Tokenizer, config: BundleConfig, censored: bool) -> Part:
    requests = data.requests
    features = matrix(requests)
    if config.features == ALL:
        features = with_sampling(features, requests)
    inputs = build_inputs(requests, tokenizer, config.text, config.models, features)
    return make_part(inputs, data, config.bounds, censored)
