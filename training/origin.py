"""The bundle that a training run starts from (`mope train --from`): its shape, its tokenizer, all of its weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mope.errors import BundleError
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.config import BundleConfig, TextConfig
from mope.training.recipe import Recipe, load_recipe, presets
from mope.types import BUCKETS

MODELS = "head.model.weight"
States = dict[str, dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Origin:
    """Weights of each network by name; those of the proxy hold the shared layers too."""

    config: BundleConfig
    tokenizer: Tokenizer
    states: States
    digest: str

    @classmethod
    def of(cls, source: str | Path) -> Origin:
        """A bundle from a folder or Hub id. Raises `BundleError` where it is not whole or has graphs alone."""
        bundle = MoPE.from_pretrained(source, backend="torch", overlay="none")  # checks every file's hash
        folder, config = bundle.folder, bundle.config
        needed = [*([layout.TRUNK] if config.shared_layers else []), layout.PROXY, *BUCKETS]
        missing = [layout.weights_file(n) for n in needed if not (folder / layout.weights_file(n)).is_file()]
        if missing:
            raise BundleError(
                f"a bundle without {missing[0]}", "PyTorch weights to start from", "take a bundle that was not "
                "made compact"
            )  # fmt: skip
        states = {name: _state(folder, name, config) for name in layout.NETWORKS if bundle.backend.has(name)}
        trunk = states.pop(layout.TRUNK, {})
        states[layout.PROXY] |= {f"encoder.{key}": value for key, value in trunk.items()}
        text = layout.read_text(folder, layout.CONFIG)
        return cls(config, bundle.tokenizer, states, hashlib.sha256(text.encode()).hexdigest())

    def shape(self, recipe: Recipe) -> Recipe:
        """`recipe` for networks of this shape; it may ask for another cut of the texts, which is in no weight."""
        config = self.config
        usual = [TextConfig(), *(load_recipe(name).text for name in presets() if name == recipe.preset)]
        text = config.text if recipe.text in usual else recipe.text
        return replace(
            recipe, encoder=config.encoder, text=text, quantiles=config.quantiles, origin=self.digest,
            shared_layers=config.shared_layers, frozen_layers=min(recipe.frozen_layers, config.shared_layers),
        )  # fmt: skip

    def config_of(self, config: BundleConfig) -> BundleConfig:
        """The new bundle's config with this one's tokenizer and features, and its served models before new ones."""
        old = self.config
        models = old.models + tuple(name for name in config.models if name not in old.models)
        return replace(
            config, tokenizer=old.tokenizer, features=old.features, models=models if len(models) > 1 else ()
        )

    def fill(self, name: str, network: nn.Module, models: tuple[str, ...]) -> bool:
        """Set `network` to the bundle's network of that name; False where the bundle has none.

        A served model that is new starts where the population stands.
        """
        given, own = self.states.get(name), network.state_dict()
        if given is None:
            return False
        table = given[MODELS]
        rows = [1 + self.config.models.index(m) if m in self.config.models else 0 for m in ("", *models)]
        moved = given | {MODELS: table[torch.tensor(rows)]}
        network.load_state_dict({key: moved.get(key, value) for key, value in own.items()})
        return True


def _state(folder: Path, name: str, config: BundleConfig) -> dict[str, Tensor]:
    arrays = layout.read_arrays(folder, layout.weights_file(name), config.most_bytes)
    return {key: torch.tensor(array) for key, array in arrays.items()}
