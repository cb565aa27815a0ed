"""Measured facts about a run, for facts.json and the card: data, sizes, time, device, versions, seeds."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from mope.data.records import LengthData
from mope.data.split import Bounds
from mope.machine import cpu_name
from mope.predictor.config import BundleConfig
from mope.training.recipe import Recipe

PACKAGES = ("mope-llm", "torch", "lightning", "scikit-learn", "numpy", "tokenizers", "safetensors")


def training_facts(
    recipe: Recipe,
    data: LengthData,
    parts: Mapping[str, LengthData],
    bounds: Bounds,
    stages: Mapping[str, Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """Everything a reader needs to judge or repeat the run, evaluation excepted."""
    return {
        "data": {
            "digest": data.digest(),
            "examples": {part: len(rows) for part, rows in parts.items()},
            "groups": {part: len(set(rows.groups)) for part, rows in parts.items()},
            "sources": dict(Counter(data.sources).most_common()),
            "models": len(set(data.models)),
            "refused": dict(data.refused),
            "notes": data.notes,
        },
        "bounds": asdict(bounds),
        "recipe": recipe.to_dict(),
        "stages": {name: dict(record) for name, record in stages.items()},
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_memory(),
        **device_facts(recipe),
    }


def cost_facts(config: BundleConfig, networks: Mapping[str, nn.Module], tokens: float) -> dict[str, Any]:
    """Parameters of each network, and forward FLOPs of one request of `tokens` tokens by way of answering.

    FLOPs are two a multiplication of weights or attention; heads and embeddings are left out as too small.
    """
    e = config.encoder
    weights = 4 * e.hidden_size**2 + 2 * e.hidden_size * e.intermediate_size
    layer = 2 * tokens * weights + 4 * tokens**2 * e.hidden_size
    upper, shared = e.num_hidden_layers - config.shared_layers, config.shared_layers
    router = 0 if config.router == "lexical" else upper
    return {
        "parameters": {
            name: sum(p.numel() for p in module.parameters()) for name, module in networks.items()
        },
        "median_tokens": tokens,
        "forward_flops": {
            "proxy": (shared + upper) * layer,
            "hard": (shared + router + upper) * layer,
            "soft": (shared + router + 3 * upper) * layer,
        },
    }


def device_facts(recipe: Recipe) -> dict[str, Any]:
    """The machine and the versions."""
    return {
        "device": _device(),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in PACKAGES},
        "seed": recipe.seed,
    }


def peak_memory() -> int:
    """Most memory this process held, in bytes: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return cpu_name()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
