"""What training came to: networks in memory, the choice between routings on validation, and the writing of files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from mope.data.records import LengthData
from mope.files import write_text
from mope.predictor import layout
from mope.predictor.bundle import MoPE, with_hashes
from mope.predictor.calibration import Calibration, calibrate, predicted_buckets
from mope.predictor.config import ROUTERS, BundleConfig
from mope.predictor.floors import Floors
from mope.predictor.mixture import mix
from mope.predictor.router import LexicalRouter
from mope.predictor.torch_backend import TorchBackend
from mope.types import BUCKETS, Request

FloatArray = NDArray[np.float64]
Logs = dict[str, tuple[FloatArray, FloatArray | None]]


@dataclass(frozen=True)
class Trained:
    """All parts of a bundle before it has files. `joint` holds the jointly tuned router and experts, if any."""

    config: BundleConfig
    networks: dict[str, nn.Module]
    joint: dict[str, nn.Module]
    lexical: LexicalRouter
    floors: Floors
    tokenizer: Tokenizer

    def bundle(self) -> MoPE:
        """The parts as a bundle that predicts."""
        backend = TorchBackend(Path(), self.config, self.networks)
        bundle = MoPE(Path(), self.config, backend, self.tokenizer)
        bundle.__dict__["lexical"] = self.lexical
        bundle.__dict__["floors"] = self.floors
        return bundle

    def logs(self, bundle: MoPE, requests: Sequence[Request]) -> Logs:
        """Log quantiles [n, K] and router probabilities of the columns that are calibrated."""
        inputs = bundle.inputs(requests)
        outputs = bundle.run(_answering(self), inputs)
        probabilities = bundle.route(requests, inputs, outputs)
        experts, proxy = np.stack([outputs[b] for b in BUCKETS], axis=1), outputs[layout.PROXY]
        rows = np.arange(len(inputs))
        return {
            "hard": (experts[rows, probabilities.argmax(1)], probabilities),
            "soft": (mix(experts, probabilities, self.config.quantiles), probabilities),
            "proxy": (proxy, None),
        }

    def write(self, folder: Path, calibration: Calibration, facts: dict[str, Any]) -> None:
        """Write the bundle's files; config.json, which makes it a bundle, last."""
        for name, module in self.networks.items():
            arrays = {k: v.detach().cpu().numpy() for k, v in module.state_dict().items()}
            layout.write_arrays(folder / layout.weights_file(name), arrays)
        layout.write_arrays(folder / layout.ROUTER, self.lexical.to_arrays())
        layout.write_arrays(folder / layout.FLOORS, self.floors.to_arrays())
        write_text(folder / layout.TOKENIZER, self.tokenizer.to_str())
        write_text(folder / layout.CALIBRATION, calibration.to_json())
        write_text(folder / layout.FACTS, json.dumps(facts, indent=2, default=str) + "\n")
        write_text(folder / layout.CONFIG, with_hashes(self.config, folder).to_json())


def choose(trained: Trained, data: LengthData, routing: str) -> tuple[Trained, dict[str, float]]:
    """The way of answering with the least validation MAE, and the MAE of each.

    Candidates are {separate, joint} networks x {lexical, encoder, both} routers x {hard, soft} routing. A fixed
    `routing` keeps the router that `trained.config` names.
    """
    networks = {"separate": trained}
    if trained.joint:
        networks["joint"] = replace(trained, networks={**trained.networks, **trained.joint})
    scores: dict[str, float] = {}
    for name, candidate in networks.items():
        for key, tokens in _medians(candidate, data.requests).items():
            scores["proxy" if key == "proxy" else f"{name}, {key}"] = _mae(tokens, data)
    fixed = f"{trained.config.router}, {routing}"
    allowed = [k for k in scores if k != "proxy" and (routing == "auto" or k.endswith(fixed))]
    name, router, column = min(allowed, key=scores.__getitem__).split(", ")
    chosen = networks[name]
    return replace(chosen, config=replace(chosen.config, routing=column, router=router)), scores


def _medians(trained: Trained, requests: Sequence[Request]) -> dict[str, FloatArray]:
    """Median tokens [n] by "router, routing", and of the proxy."""
    bundle = trained.bundle()
    inputs = bundle.inputs(requests)
    outputs = bundle.run(_answering(trained), inputs)
    experts = np.stack([outputs[b] for b in BUCKETS], axis=1)
    rows, levels = np.arange(len(inputs)), trained.config.quantiles
    logs = {"proxy": outputs[layout.PROXY]}
    for router in ROUTERS if layout.ENCODER_ROUTER in outputs else ROUTERS[:1]:
        chances = bundle.route(requests, inputs, outputs, router)
        logs[f"{router}, hard"] = experts[rows, chances.argmax(1)]
        logs[f"{router}, soft"] = mix(experts, chances, levels)
    return {key: np.expm1(quantiles[:, levels.index(0.5)]) for key, quantiles in logs.items()}


def _mae(tokens: FloatArray, data: LengthData) -> float:
    errors = [np.abs(np.asarray(e.lengths) - t).mean() for e, t in zip(data.examples, tokens, strict=True)]
    return float(np.mean(errors))


def calibrated(trained: Trained, data: LengthData) -> Calibration:
    """Offsets of each column from `data`, which no stage has seen; a prompt's answers share its weight."""
    bundle, levels, bounds = trained.bundle(), trained.config.quantiles, trained.config.bounds
    sizes = np.array([len(e.lengths) for e in data.examples])
    spread = np.repeat(np.arange(len(sizes)), sizes)
    columns = {}
    for name, (logs, probabilities) in trained.logs(bundle, data.requests).items():
        by_median = predicted_buckets(logs[:, levels.index(0.5)], (bounds.short, bounds.medium))
        buckets = by_median if probabilities is None else probabilities.argmax(1)
        columns[name] = (logs[spread], buckets[spread])
    lengths = np.array([n for example in data.examples for n in example.lengths], np.float64)
    return calibrate(columns, lengths, 1.0 / sizes[spread], levels)


def _answering(trained: Trained) -> list[str]:
    """Every network but the trunk."""
    return [name for name in trained.networks if name != layout.TRUNK]
