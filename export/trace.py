"""PyTorch modules as fp32 graphs with free batch, text and token counts."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mope.export.graphs import MOST_BYTES, refill, strip
from mope.export.tail import Tail
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.config import BundleConfig
from mope.predictor.torch_backend import load_network

OPSET = 20
MOST_ROWS = 65_536
INPUTS = ("x", "segments", "mask", "text", "features", "model")
Axes = Mapping[str, tuple[str, ...]]


def write_graphs(names: Sequence[str], bundle: MoPE, scratch: Path) -> None:
    """Every fp32 graph. The experts and the proxy have one shape: the first of them is traced for all."""
    traced: dict[str, dict[str, NDArray[Any]]] = {}
    for name in names:
        module = load_network(name, bundle.folder, bundle.config)
        weights = {key: value.numpy() for key, value in module.state_dict().items()}
        path = scratch / layout.onnx_file(name, "fp32")
        twins = ((scratch / layout.onnx_file(other, "fp32"), theirs) for other, theirs in traced.items())
        if not any(refill(twin, path, theirs, weights) for twin, theirs in twins):
            write_graph(name, module, bundle.config, path)
            traced[name] = weights


def write_graph(name: str, module: nn.Module, config: BundleConfig, path: Path) -> None:
    """Trace one network."""
    args, axes = _example(name, config)
    _trace(module, args, axes, ("out",), path, config.encoder.max_position_embeddings)


def tail_graph(config: BundleConfig, shifts: Sequence[Sequence[float]]) -> onnx.ModelProto:
    """What comes after the networks, for the bundle's levels and routing and the calibration's `shifts` [3][2]."""
    moves = tuple((float(low), float(high)) for low, high in shifts)
    model: onnx.ModelProto = onnx.load_from_string(_tail(config.quantiles, moves, config.routing == "soft"))
    return model


@lru_cache(maxsize=8)
def _tail(levels: tuple[float, ...], shifts: tuple[tuple[float, float], ...], soft: bool) -> bytes:
    logs = torch.arange(5.0 * 3 * len(levels)).reshape(5, 3, -1)
    args = {"logs": logs if soft else logs[:, 0], "probabilities": torch.full((5, 3), 1 / 3)}
    axes = {"logs": ("rows", "", "")[: args["logs"].dim()], "probabilities": ("rows", "")}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tail.onnx"
        _trace(Tail(levels, shifts, soft), args, axes, ("tokens", "low", "high", "quantiles"), path)
        return path.read_bytes()


def _example(name: str, config: BundleConfig) -> tuple[dict[str, Tensor], Axes]:
    """Inputs to trace with, and which of their axes are free."""
    texts, rows, tokens = 3, 5, 17
    trunk = name == layout.TRUNK
    ids = torch.randint(1, config.encoder.vocab_size, (texts, tokens))
    hidden = torch.randn(texts, tokens, config.encoder.hidden_size)
    flat = ids if trunk or not config.shared_layers else hidden
    args = {
        "x": flat, "segments": torch.zeros_like(ids), "mask": torch.ones_like(ids),
        "text": torch.tensor([0, 1, 2, 2, 1]), "features": torch.randn(rows, len(config.features)),
        "model": torch.zeros(rows, dtype=torch.long),
    }  # fmt: skip
    axes: dict[str, tuple[str, ...]] = {
        "x": ("texts", "tokens", "")[: flat.dim()], "segments": ("texts", "tokens"), "mask": ("texts", "tokens"),
        "text": ("rows",), "features": ("rows", ""), "model": ("rows",),
    }  # fmt: skip
    kept = INPUTS[:3] if trunk else INPUTS
    return {k: args[k] for k in kept}, {k: axes[k] for k in kept}


def _trace(
    module: nn.Module,
    args: Mapping[str, Tensor],
    axes: Axes,
    outputs: Sequence[str],
    path: Path,
    tokens: int = 512,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dims = {name: torch.export.Dim(name, min=1, max=MOST_ROWS) for name in ("texts", "rows")}
    dims["tokens"] = torch.export.Dim("tokens", min=2, max=tokens)
    shapes = [{place: dims[axis] for place, axis in enumerate(axes[key]) if axis} for key in args]
    large = sum(weight.nbytes for weight in module.state_dict().values()) > MOST_BYTES
    with _quiet():
        program = torch.onnx.export(
            module.eval(), tuple(args.values()), dynamo=True, opset_version=OPSET, input_names=list(args),
            output_names=list(outputs), dynamic_shapes=shapes, verbose=False,
        )  # fmt: skip
        assert program is not None
        program.save(path, external_data=large)
    strip(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks a lot about what cannot be helped."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
