"""A bundle's networks as ONNX graphs, fp32 and int8, each checked against PyTorch before it is kept."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mope.errors import BundleError, MopeError
from mope.export.graphs import refill, strip
from mope.predictor import layout
from mope.predictor.bundle import MoPE, with_hashes
from mope.predictor.config import BundleConfig
from mope.predictor.inputs import Batch
from mope.predictor.onnx_backend import OnnxBackend
from mope.predictor.torch_backend import TorchBackend, load_network

OPSET = 20
TOLERANCE = 2e-3  # of log1p(length), fp32 against PyTorch: far below one token at any length
PROBES = (
    "Explain quicksort",
    "Write a long story about a castle by the sea, in five chapters, with a dragon that is afraid of water.",
    "hi",
    "def f(x):\n    return x ** 2\n\nWhat does this do? Answer in one word.",
    "请用中文写一首关于秋天的诗。",
)
INPUTS = ("x", "segments", "mask", "text", "features", "model")


@dataclass(frozen=True)
class Parity:
    """Largest and mean difference of a graph's outputs from PyTorch's on the same rows."""

    network: str
    int8: bool
    largest: float
    mean: float
    bytes: int


def export_onnx(bundle: MoPE, folder: Path, probe: Batch, *, int8: bool = False) -> list[Parity]:
    """Write every network of `bundle` (a torch backend) as ONNX under `folder`; fp32, and int8 where asked.

    Raises `MopeError` where an fp32 graph differs from PyTorch by more than `TOLERANCE` on `probe`; nothing is
    left behind then.
    """
    config, found = bundle.config, []
    reference = TorchBackend(bundle.folder, config)
    names = [n for n in layout.NETWORKS if reference.has(n) and (config.shared_layers or n != layout.TRUNK)]
    if not names:
        raise BundleError(
            "a bundle without PyTorch weights (*.safetensors)",
            "a bundle written by mope train",
            "export that one",
        )
    with tempfile.TemporaryDirectory() as scratch:
        _write_graphs(names, bundle, Path(scratch))
        for name in names if int8 else ():
            _quantize(Path(scratch), name)
        for low in (False, True)[: 1 + int8]:
            for row in _parity(Path(scratch), names, reference, config, probe, low):
                if not low and row.largest > TOLERANCE:
                    raise MopeError(
                        f"ONNX graph of {row.network} is off by {row.largest:.2g}, more than {TOLERANCE}"
                    )
                found.append(row)
        for row in found:
            file = layout.onnx_file(row.network, row.int8)
            with layout.whole(folder / file) as partial:
                partial.write_bytes((Path(scratch) / file).read_bytes())
    return found


def compact(bundle: MoPE, folder: Path) -> None:
    """A bundle that only predicts: int8 graphs and what routes, calibrates and tells; no PyTorch weights."""
    names = [layout.ROUTER, layout.FLOORS, layout.TOKENIZER, layout.CALIBRATION, layout.FACTS]
    kept = [
        p.relative_to(bundle.folder).as_posix()
        for p in sorted((bundle.folder / "onnx" / "int8").glob("*.onnx"))
    ]
    for name in names + kept:
        if (bundle.folder / name).is_file():
            with layout.whole(folder / name) as partial:
                partial.write_bytes((bundle.folder / name).read_bytes())
    layout.write_text(folder / layout.CONFIG, with_hashes(bundle.config, folder).to_json())


def _write_graphs(names: Sequence[str], bundle: MoPE, scratch: Path) -> None:
    """Every fp32 graph. The experts and the proxy have one shape: the first of them is traced for all."""
    traced: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name in names:
        module = load_network(name, bundle.folder, bundle.config)
        weights = {key: value.numpy() for key, value in module.state_dict().items()}
        path = scratch / layout.onnx_file(name, False)
        twins = ((scratch / layout.onnx_file(other, False), theirs) for other, theirs in traced.items())
        if not any(refill(twin, path, theirs, weights) for twin, theirs in twins):
            _write_graph(name, module, bundle.config, scratch)
            traced[name] = weights


def _write_graph(name: str, module: nn.Module, config: BundleConfig, scratch: Path) -> None:
    """Trace one network with free batch, text and token counts."""
    path = scratch / layout.onnx_file(name, False)
    path.parent.mkdir(parents=True, exist_ok=True)
    args, axes = _example(name, config)
    dims = {k: torch.export.Dim(k, min=1, max=65_536) for k in ("texts", "rows")}
    dims["tokens"] = torch.export.Dim("tokens", min=2, max=config.encoder.max_position_embeddings)
    shapes = {
        key: {place: dims[axis] for place, axis in enumerate(names) if axis} for key, names in axes.items()
    }
    with _quiet():
        program = torch.onnx.export(
            module.eval(), tuple(args.values()), dynamo=True, opset_version=OPSET, input_names=list(args),
            output_names=["out"], dynamic_shapes=list(shapes.values()), verbose=False,
        )  # fmt: skip
        assert program is not None
        program.save(path, external_data=False)
    strip(path)


def _example(name: str, config: BundleConfig) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
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


def _quantize(scratch: Path, name: str) -> None:
    """Dynamic int8: weights of matrix products and the embedding tables."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    target = scratch / layout.onnx_file(name, True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        quantize_dynamic(
            scratch / layout.onnx_file(name, False), target, weight_type=QuantType.QInt8, per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"], reduce_range=False,
        )  # fmt: skip


def _parity(
    scratch: Path,
    names: Sequence[str],
    reference: TorchBackend,
    config: BundleConfig,
    probe: Batch,
    int8: bool,
) -> Iterator[Parity]:
    onnx = OnnxBackend(scratch, config, int8=int8, threads=1)
    theirs, ours = onnx.shared(probe), reference.shared(probe)
    for name in names:
        if name == layout.TRUNK:
            off = _difference(np.asarray(theirs), ours.float().cpu().numpy(), probe.mask)
        else:
            off = np.abs(onnx.run(name, probe, theirs) - reference.run(name, probe, ours))
        size = (scratch / layout.onnx_file(name, int8)).stat().st_size
        yield Parity(name, int8, float(off.max()), float(off.mean()), size)


def _difference(
    a: NDArray[np.float32], b: NDArray[np.float32], mask: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Differences of hidden states where there are tokens: padding is nobody's."""
    out: NDArray[np.float32] = np.abs(a - b)[mask.astype(bool)]
    return out


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and the quantizer talk a lot about what cannot be helped."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
