"""Networks and texts without a meaning: to time passes of any shape, or (device "meta") to count their launches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mope.data.split import Bounds
from mope.predictor.config import BundleConfig, EncoderConfig, TextConfig
from mope.predictor.engine import Engine, Ops
from mope.predictor.features import NAMES
from mope.predictor.graphs import shapes
from mope.predictor.inputs import Inputs
from mope.predictor.packing import Pack
from mope.predictor.stacks import Weights
from mope.predictor.torch_backend import build

SHAPES = {
    "bert-base": EncoderConfig(768, 12, 12, 3072),
    "minilm": EncoderConfig(384, 6, 12, 1536),
}
FLOATS = ("features", "lexical")


def made_up_config(encoder: EncoderConfig, shared_layers: int = 0) -> BundleConfig:
    """A bundle config that takes texts as long as the encoder does."""
    longest = encoder.max_position_embeddings
    return BundleConfig(
        Bounds(100, 300, 1000), shared_layers=shared_layers, encoder=encoder, features=NAMES,
        text=TextConfig(longest - 4, 0, 0, 0),
    )  # fmt: skip


def made_up_networks(
    config: BundleConfig, names: Sequence[str], device: str, seed: int = 0
) -> dict[str, torch.nn.Module]:
    """Networks with weights as they are before training."""
    torch.manual_seed(seed)
    with torch.device(device):
        return {name: build(name, config).eval() for name in names}


def made_up_inputs(lengths: Sequence[int] | NDArray[np.int64], config: BundleConfig, seed: int = 0) -> Inputs:
    """One text of random tokens for each length, and rows that read one each."""
    rng, n = np.random.default_rng(seed), len(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Inputs(
        rng.integers(0, config.encoder.vocab_size, starts[-1]).astype(np.int32), np.zeros(starts[-1], np.int8),
        starts, np.arange(n), rng.random((n, len(config.features)), np.float32), np.zeros(n, np.int64),
    )  # fmt: skip


def recorded(ops: Ops, weights: Weights, given: Pack) -> None:
    """Run a pass on buffers without memory: inside `launch.recording` its launches are noted."""
    size = given.size
    buffers = {
        name: torch.empty(shape, dtype=torch.float32 if name in FLOATS else torch.int32, device="meta")
        for name, shape in shapes(given, size).items()
    }
    Engine(ops, weights).answers(buffers, size)
