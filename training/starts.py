"""What a network is before its stage: pretrained, set from the data, or cut and copied from another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mope.errors import ConfigError
from mope.predictor import layout
from mope.predictor.config import BundleConfig
from mope.predictor.encoder import Stack
from mope.predictor.expert import Expert
from mope.predictor.torch_backend import build
from mope.training.feed import Part
from mope.training.pretrained import load_weights
from mope.training.recipe import Recipe


def new_proxy(config: BundleConfig, weights: Path | None, dropout: float) -> Expert:
    """A whole encoder with its head; pretrained where there are weights."""
    proxy = Expert(config, 0, dropout=dropout)
    if weights is not None:
        _load_encoder(proxy, load_weights(weights))
    return proxy


def start(network: Expert, part: Part, quantiles: Sequence[float]) -> None:
    """Feature scales and output bias from the training data."""
    level = np.sign(part.inputs.features) * np.log1p(np.abs(part.inputs.features))
    gone = np.isnan(level).all(axis=0)
    level[:, gone] = 0
    network.head.mean.copy_(torch.from_numpy(np.nanmean(level, axis=0)))
    network.head.scale.copy_(torch.from_numpy(np.nanstd(level, axis=0) + 1e-3))
    logs = np.quantile(np.log1p(part.lengths[part.weights > 0]), quantiles)
    steps = np.log(np.expm1(np.maximum(np.diff(logs), 1e-3)))
    with torch.no_grad():
        network.head.out.bias.copy_(torch.from_numpy(np.concatenate([logs[:1], steps]).astype(np.float32)))


def cut(proxy: Expert, config: BundleConfig, dropout: float) -> tuple[Stack, Expert]:
    """The proxy's lower layers, which are not trained again, and its upper layers with the head."""
    trunk = build(layout.TRUNK, config)
    assert isinstance(trunk, Stack)
    trunk.load_state_dict({k: v for k, v in proxy.encoder.state_dict().items() if k in trunk.state_dict()})
    trunk.requires_grad_(False)
    tower = build(layout.PROXY, config, dropout)
    assert isinstance(tower, Expert)
    upper = tower.state_dict()
    tower.load_state_dict({k: v for k, v in proxy.state_dict().items() if k in upper})
    return trunk, tower


def copy_as(name: str, network: nn.Module, config: BundleConfig, recipe: Recipe) -> Expert:
    """A network named `name` that starts where `network` stands (its output layer too, if it is of that kind)."""
    torch.manual_seed(recipe.seed * 7919 + layout.NETWORKS.index(name))
    copy = build(name, config, recipe.optim.dropout)
    assert isinstance(copy, Expert)
    own = copy.state_dict()
    same = {k: v for k, v in network.state_dict().items() if k in own and v.shape == own[k].shape}
    copy.load_state_dict(own | same)
    if not recipe.shared_layers:
        freeze(copy, recipe.frozen_layers)
    return copy


def _load_encoder(network: Expert, tensors: dict[str, Tensor]) -> None:
    own = network.encoder.state_dict()
    missing = sorted(set(own) - set(tensors))
    if missing:
        raise ConfigError(
            f"pretrained weights without {missing[0]} (and {len(missing) - 1} more)", "a BERT encoder"
        )
    other = [name for name in own if own[name].shape != tensors[name].shape]
    if other:
        raise ConfigError(
            f"pretrained {other[0]} of shape {tuple(tensors[other[0]].shape)}",
            f"{tuple(own[other[0]].shape)}, as their config.json says",
        )
    network.encoder.load_state_dict({name: tensors[name] for name in own})


def freeze(network: Expert, layers: int) -> None:
    """The embeddings and the lowest `layers` are not trained."""
    if network.encoder.embeddings is not None:
        network.encoder.embeddings.requires_grad_(False)
    for name, layer in network.encoder.layer.items():
        if int(name) < layers:
            layer.requires_grad_(False)
