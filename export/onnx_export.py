"""A bundle's networks as ONNX graphs, each checked against PyTorch before it is kept. Start at `export_onnx`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from mope.errors import BundleError, ConfigError
from mope.export import parity
from mope.export.graphs import save
from mope.export.half import halve
from mope.export.observe import observed
from mope.export.quantize import SCHEMES, quantize
from mope.export.routed import routed
from mope.export.trace import OPSET, tail_graph, write_graphs
from mope.files import whole, write_text
from mope.predictor import layout
from mope.predictor.bundle import MoPE, with_hashes
from mope.predictor.config import ROUTINGS
from mope.predictor.onnx_backend import OnnxBackend
from mope.types import Request

NO_SHIFTS = ((0.0, 0.0),) * 3
ROUTED_SCHEME = "rows"  # a gateway may send batches: only scales of its own keep a row from its neighbours


@dataclass(frozen=True)
class Plan:
    """What to export beside fp32: which kinds, how int8 meets activations, the one-file graph and its routing."""

    fp16: bool = False
    int8: bool = False
    scheme: str = "dynamic"
    routed: bool = False
    routing: str = ""

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ConfigError(f"int8 scheme {self.scheme!r}", f"one of {', '.join(SCHEMES)}")
        if self.routing not in ("", *ROUTINGS):
            raise ConfigError(f"routing {self.routing!r}", f"one of {', '.join(ROUTINGS)}")

    @property
    def kinds(self) -> list[str]:
        """fp32, then what was asked for."""
        return ["fp32", *["fp16"] * self.fp16, *["int8"] * self.int8]


def export_onnx(
    bundle: MoPE, folder: Path, plan: Plan, calibration: Sequence[Request] | None = None
) -> dict[str, Any]:
    """Write every network of `bundle` (a torch backend) as ONNX under `folder`, and what was measured into its
    facts.json; returns that.

    `calibration`: prompts for static scales; default, those of the parity check. Raises `MopeError` where a graph
    answers from PyTorch's by more than the bounds of `mope.export.parity`; nothing is left behind then.
    """
    names = _names(bundle)
    prompts = parity.prompts()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        write_graphs(names, bundle, home)
        _convert(names, bundle, home, plan, calibration or prompts)
        facts = _measured(names, bundle, home, plan, prompts)
        for path in _written(home):
            with whole(folder / path.relative_to(home)) as partial:
                shutil.copyfile(path, partial)
    _note(bundle, folder, facts)
    return facts


def compact(bundle: MoPE, folder: Path) -> None:
    """A bundle that only predicts: int8 graphs and what routes, calibrates and tells; no PyTorch weights."""
    names = [layout.ROUTER, layout.FLOORS, layout.TOKENIZER, layout.CALIBRATION, layout.FACTS, layout.CARD]
    names += [layout.onnx_file(name, "int8") for name in layout.NETWORKS]
    for name in names:
        if (bundle.folder / name).is_file():
            with whole(folder / name) as partial:
                shutil.copyfile(bundle.folder / name, partial)
    write_text(folder / layout.CONFIG, with_hashes(bundle.config, folder).to_json())


def _names(bundle: MoPE) -> list[str]:
    config = bundle.config
    names = [
        name for name in layout.NETWORKS
        if (bundle.folder / layout.weights_file(name)).is_file() and (config.shared_layers or name != layout.TRUNK)
    ]  # fmt: skip
    if not names:
        raise BundleError(
            "a bundle without PyTorch weights (*.safetensors)",
            "a bundle written by mope train",
            "export that one",
        )
    return names


def _convert(
    names: Sequence[str], bundle: MoPE, home: Path, plan: Plan, calibration: Sequence[Request]
) -> None:
    """Every other kind from the fp32 graphs, and the graphs that hold all networks."""
    for name in names:
        source = home / layout.onnx_file(name, "fp32")
        if plan.fp16:
            halve(source, home / layout.onnx_file(name, "fp16"))
        if plan.int8:
            static = plan.scheme == "static"
            ranges = observed(source, _feeds(name, bundle, home, calibration)) if static else None
            quantize(source, home / layout.onnx_file(name, "int8"), plan.scheme, ranges)
    for kind in plan.kinds if plan.routed else ():
        save(_routed(names, bundle, home, plan, kind), home / layout.onnx_file(layout.ROUTED, kind))


def _feeds(name: str, bundle: MoPE, home: Path, requests: Sequence[Request]) -> Iterator[Mapping[str, Any]]:
    """Inputs of a network, one prompt at a time."""
    backend, inputs = OnnxBackend(home, bundle.config, kind="fp32"), bundle.inputs(requests)
    for row in range(len(inputs)):
        batch = inputs.batch(np.array([row]))
        yield {
            **vars(batch), "x": batch.ids if name == layout.TRUNK else backend.shared(batch).arrays[0]
        }  # fmt: skip


def _routed(names: Sequence[str], bundle: MoPE, home: Path, plan: Plan, kind: str) -> onnx.ModelProto:
    pieces = {}
    for name in names:
        path = home / layout.onnx_file(name, kind)
        if kind == "int8":
            path = home / "rows" / f"{name}.onnx"
            quantize(home / layout.onnx_file(name, "fp32"), path, ROUTED_SCHEME)
        pieces[name] = onnx.load(path)
    config = _as_routed(bundle, plan).config
    shifts = bundle.calibration.shifts.get(config.routing, NO_SHIFTS)
    return routed(pieces, tail_graph(config, shifts), config)


def _as_routed(bundle: MoPE, plan: Plan) -> MoPE:
    """The bundle with the routing that was asked for."""
    config = replace(bundle.config, routing=plan.routing or bundle.config.routing)
    other = MoPE(bundle.folder, config, bundle.backend, bundle.tokenizer)
    other.calibration = bundle.calibration
    return other


def _measured(
    names: Sequence[str], bundle: MoPE, home: Path, plan: Plan, prompts: Sequence[Request]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "opset": OPSET,
        "prompts": len(prompts),
        "scheme": plan.scheme if plan.int8 else None,
    }
    found |= {name: version(name) for name in ("torch", "onnx", "onnxruntime")}
    networks, forecasts = [], []
    for kind in plan.kinds:
        networks += parity.networks(home, names, bundle, prompts, kind)
        forecasts.append(parity.forecasts(home, bundle, prompts, kind))
        if plan.routed:
            path = home / layout.onnx_file(layout.ROUTED, kind)
            forecasts.append(parity.routed_forecasts(path, _as_routed(bundle, plan), prompts, kind))
    found["networks"], found["forecasts"] = ([asdict(row) for row in rows] for rows in (networks, forecasts))
    return found


def _written(home: Path) -> list[Path]:
    return [path for path in sorted((home / "onnx").rglob("*")) if path.is_file()]


def _note(bundle: MoPE, folder: Path, facts: Mapping[str, Any]) -> None:
    """Put the numbers into facts.json and the hashes into config.json."""
    known = json.loads(layout.read_text(folder, layout.FACTS)) if (folder / layout.FACTS).is_file() else {}
    write_text(folder / layout.FACTS, json.dumps({**known, "export": facts}, indent=1) + "\n")
    bundle.config = with_hashes(bundle.config, folder)
    write_text(folder / layout.CONFIG, bundle.config.to_json())
