"""How far exported graphs answer from PyTorch, on real prompts: network by network, and as forecasts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

from mope.errors import MopeError
from mope.export.routed import OUTPUTS
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.onnx_backend import OnnxBackend, Session, session_options
from mope.predictor.torch_backend import TorchBackend
from mope.types import History, Request

# Largest difference from PyTorch that is kept: of a network's outputs (log1p tokens, or hidden states); of one
# forecast, as a share of it; and of the forecasts on average. One int8 forecast may be far off, so it is only told.
NETWORK = {"fp32": 2e-3, "fp16": 0.2}
LARGEST = {"fp32": 1e-3, "fp16": 0.05}
MEAN = {"fp32": 1e-4, "fp16": 0.01, "int8": 0.1}
ODD = (
    Request("hi"),
    Request("def f(x):\n    return x ** 2\n\nWhat does this do? Answer in one word."),
    Request("请用中文写一首关于秋天的诗。", max_tokens=400),
    Request("Shorter, please", history=History(1, ("Explain quicksort",), (300,), "back together.", 340)),
)


@dataclass(frozen=True)
class NetworkParity:
    """Largest and mean difference of a graph's outputs from PyTorch's on the same rows."""

    network: str
    kind: str
    largest: float
    mean: float
    bytes: int


@dataclass(frozen=True)
class ForecastParity:
    """Differences of forecasts from PyTorch's, in tokens and as a share; `graphs` are "networks" or "routed"."""

    graphs: str
    kind: str
    prompts: int
    largest_tokens: float
    mean_tokens: float
    largest_share: float
    mean_share: float


def prompts() -> list[Request]:
    """66 real prompts (GPTeacher, MIT; Open-Assistant's samples, Apache-2.0), and four odd ones."""
    lines = (files("mope.export") / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [*(Request(json.loads(line)["prompt"]) for line in lines), *ODD]


def networks(
    scratch: Path, names: Sequence[str], reference: MoPE, requests: Sequence[Request], kind: str
) -> list[NetworkParity]:
    """One row for each network of `kind` below `scratch`. Raises `MopeError` beyond the bound of `NETWORK`."""
    onnx = OnnxBackend(scratch, reference.config, kind=kind)
    torch = TorchBackend(reference.folder, reference.config)
    inputs = reference.inputs(requests)
    off: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for row in range(len(inputs)):
        batch = inputs.batch(np.array([row]))
        theirs, ours = onnx.shared(batch), torch.shared(batch)
        for name in names:
            if name == layout.TRUNK:
                hidden = ours.float().cpu().numpy()
                off[name].append(np.abs(theirs.arrays[0] - hidden).ravel())
            else:
                off[name].append(np.abs(onnx.run(name, batch, theirs) - torch.run(name, batch, ours)).ravel())
    return [_network(name, kind, np.concatenate(off[name]), scratch) for name in names]


def _network(name: str, kind: str, off: NDArray[np.float32], scratch: Path) -> NetworkParity:
    size = (scratch / layout.onnx_file(name, kind)).stat().st_size
    _bound(f"the {kind} graph of {name}", float(off.max()), NETWORK.get(kind))
    return NetworkParity(name, kind, float(off.max()), float(off.mean()), size)


def forecasts(scratch: Path, reference: MoPE, requests: Sequence[Request], kind: str) -> ForecastParity:
    """The row of `predict` by the networks of `kind` below `scratch`. Raises `MopeError` beyond the bounds."""
    other = MoPE(
        reference.folder,
        reference.config,
        OnnxBackend(scratch, reference.config, kind=kind),
        reference.tokenizer,
    )
    other.calibration = reference.calibration
    tokens = np.array([forecast.tokens for forecast in other.predict(requests)])
    return _row("networks", kind, tokens, reference, requests)


def routed_forecasts(path: Path, reference: MoPE, requests: Sequence[Request], kind: str) -> ForecastParity:
    """The row of the graph that holds all networks, asked for all prompts in one padded batch."""
    session = ort.InferenceSession(path, session_options(Session()), providers=["CPUExecutionProvider"])
    found = ask_routed(session, reference, requests)
    return _row("routed", kind, found["tokens"], reference, requests)


def ask_routed(session: Any, bundle: MoPE, requests: Sequence[Request]) -> dict[str, NDArray[np.float32]]:
    """Outputs of a routed graph by name, for requests in one padded batch."""
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), routed_feed(bundle, requests)), strict=True))


def routed_feed(bundle: MoPE, requests: Sequence[Request]) -> dict[str, NDArray[Any]]:
    """The inputs of a routed graph for some requests; every row has a text of its own."""
    inputs = bundle.inputs(requests)
    ids, segments, mask = inputs.padded(inputs.text)
    feed: dict[str, NDArray[Any]] = {
        "ids": ids, "segments": segments, "mask": mask, "features": inputs.features, "model": inputs.model,
    }  # fmt: skip
    if bundle.config.router != "encoder":
        feed["lexical"] = bundle.lexical.probabilities(requests, inputs.features)
    return feed


def _row(
    graphs: str, kind: str, tokens: NDArray[Any], reference: MoPE, requests: Sequence[Request]
) -> ForecastParity:
    true = np.array([forecast.tokens for forecast in reference.predict(requests)])
    off = np.abs(tokens - true)
    share = off / np.maximum(true, 1.0)
    _bound(f"a forecast by {kind} {graphs}", float(share.max()), LARGEST.get(kind))
    _bound(f"the mean forecast by {kind} {graphs}", float(share.mean()), MEAN[kind])
    return ForecastParity(
        graphs, kind, len(true), float(off.max()), float(off.mean()), float(share.max()), float(share.mean())
    )


def _bound(what: str, found: float, most: float | None) -> None:
    if most is not None and not found <= most:
        raise MopeError(f"{what} is off by {found:.2g} from PyTorch's, more than {most}: nothing was written")
