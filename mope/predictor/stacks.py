"""Networks as weights stacked over the experts, with every LayerNorm folded into what reads it next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from mope.kernels.operands import Affine, Dense, HeadWeights, Tables
from mope.kernels.reference import fold
from mope.predictor.config import BundleConfig
from mope.predictor.layout import ENCODER_ROUTER, TRUNK

State = Mapping[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class LayerWeights:
    """One layer. `before` is the norm that its input still lacks (None at the bottom), `between` the inner one."""

    qkv: Dense
    out: Dense
    up: Dense
    down: Dense
    before: Affine | None
    between: Affine


@dataclass(frozen=True)
class StackWeights:
    """Layers, with embeddings below where the stack begins at the text; `after` is the norm its output lacks."""

    tables: Tables | None
    layers: tuple[LayerWeights, ...]
    after: Affine


@dataclass(frozen=True)
class Weights:
    """All networks of a bundle. `trunk` is what they share (one expert), or None; `tower` is stacked over `names`."""

    names: tuple[str, ...]
    heads: int
    trunk: StackWeights | None
    tower: StackWeights
    head: HeadWeights


def assembled(
    states: Mapping[str, State], config: BundleConfig, dtype: torch.dtype, device: torch.device
) -> Weights:
    """Networks by name (the trunk among them where the config shares layers) as one set of weights."""
    shared, depth = config.shared_layers, config.encoder.num_hidden_layers
    names = tuple(name for name in states if name != TRUNK)
    trunk = before = None
    if shared:
        trunk = stack_weights([states[TRUNK]], "", 0, shared, None, dtype)
        before = for_each(trunk.after, len(names))
    towers = [states[name] for name in names]
    tower = stack_weights(towers, "encoder.", shared, depth, before, dtype)
    head = head_weights(towers, [name != ENCODER_ROUTER for name in names], tower.after)
    return moved(Weights(names, config.encoder.num_attention_heads, trunk, tower, head), device)


def stack_weights(
    states: Sequence[State], prefix: str, first: int, last: int, before: Affine | None, dtype: torch.dtype
) -> StackWeights:
    """Layers `first` to `last` of several networks; `prefix` stands before the names of `encoder.Stack`."""

    def every(name: str) -> Tensor:
        return torch.stack([state[prefix + name] for state in states])

    def affine(name: str) -> Affine:
        return Affine(every(f"{name}.weight").float(), every(f"{name}.bias").float())

    def dense(names: Sequence[str], norm: Affine | None) -> Dense:
        weights = torch.cat([every(f"{name}.weight") for name in names], dim=1)
        return fold(weights, torch.cat([every(f"{name}.bias") for name in names], dim=1), norm, dtype)

    tables = None
    if first == 0:
        words, places, segments = (
            every(f"embeddings.{kind}_embeddings.weight").to(dtype)
            for kind in ("word", "position", "token_type")
        )
        tables = Tables(words, places, segments, affine("embeddings.LayerNorm"))
    layers = []
    for at in (f"layer.{i}" for i in range(first, last)):
        between = affine(f"{at}.attention.output.LayerNorm")
        attention = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        layers.append(
            LayerWeights(
                qkv=dense(attention, before),
                out=dense([f"{at}.attention.output.dense"], None),
                up=dense([f"{at}.intermediate.dense"], between),
                down=dense([f"{at}.output.dense"], None),
                before=before,
                between=between,
            )
        )
        before = affine(f"{at}.output.LayerNorm")
    assert before is not None
    return StackWeights(tables, tuple(layers), before)


def head_weights(states: Sequence[State], rising: Sequence[bool], after: Affine) -> HeadWeights:
    """The heads of several networks; a head of fewer outputs gets rows of zeros."""

    def every(name: str) -> Tensor:
        return torch.stack([state[f"head.{name}"].float() for state in states])

    widest = max(len(state["head.out.bias"]) for state in states)
    out, b_out = [], []
    for state in states:
        weight, bias = state["head.out.weight"].float(), state["head.out.bias"].float()
        spare = widest - len(bias)
        out.append(functional.pad(weight, (0, 0, 0, spare)))
        b_out.append(functional.pad(bias, (0, spare)))
    return HeadWeights(
        mean=every("mean"),
        scale=every("scale"),
        facts1=every("facts.0.weight"),
        b_facts1=every("facts.0.bias"),
        facts2=every("facts.2.weight"),
        b_facts2=every("facts.2.bias"),
        models=every("model.weight"),
        mix=every("mix.1.weight"),
        b_mix=every("mix.1.bias"),
        out=torch.stack(out),
        b_out=torch.stack(b_out),
        rising=torch.tensor(rising, dtype=torch.int32),
        affine=after,
    )


def for_each(affine: Affine, experts: int) -> Affine:
    """The one affine of a trunk as that of every expert above it."""
    return Affine(affine.gamma.expand(experts, -1).contiguous(), affine.beta.expand(experts, -1).contiguous())


def moved(value: T, device: torch.device) -> T:
    """A copy of a dataclass of weights, or a tuple of them, on `device`."""

    def move(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item.to(device).contiguous()
        if isinstance(item, tuple):
            return tuple(map(move, item))
        if is_dataclass(item) and not isinstance(item, type):
            return replace(item, **{f.name: move(getattr(item, f.name)) for f in fields(item)})
        return item

    found: T = move(value)
    return found
