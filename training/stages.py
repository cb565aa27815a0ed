"""Stages that are done once: each has a folder, a key over all it depends on, and a mark written last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mope.files import whole, write_text
from mope.training.ranks import first, wait_for_all

DONE = "done.json"


@dataclass
class Stages:
    """The stage folders of a run."""

    root: Path
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def folder(self, name: str, key: str) -> Path:
        """The folder of a stage with these dependencies."""
        return self.root / f"{name}-{key[:12]}"

    def run(
        self, name: str, key: str, networks: dict[str, nn.Module], work: Callable[[Path], dict[str, Any]]
    ) -> None:
        """Do `work(folder)` unless it is done; `networks` end up with its result either way.

        What `work` returns (plain values) is kept as the stage's record. Checkpoints go when the stage is done.
        """
        folder = self.folder(name, key)
        record = self._done(folder, networks)
        if record is None:
            record = work(folder)
            wait_for_all()  # nobody may still be reading the checkpoints
            if first():
                self._close(folder, networks, record)
        if first():
            for checkpoint in folder.glob("*.ckpt"):
                checkpoint.unlink()
        self.records[name] = record

    @staticmethod
    def _close(folder: Path, networks: dict[str, nn.Module], record: dict[str, Any]) -> None:
        """Weights, then the mark."""
        for network, module in networks.items():
            with whole(folder / f"{network}.safetensors") as partial:
                state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
                save_file(state, partial)
        write_text(folder / DONE, json.dumps(record, indent=2) + "\n")

    @staticmethod
    def _done(folder: Path, networks: dict[str, nn.Module]) -> dict[str, Any] | None:
        """The record of a finished stage, its weights loaded; None where it must be done (again)."""
        try:
            record: dict[str, Any] = json.loads((folder / DONE).read_text())
            states = {network: load_file(folder / f"{network}.safetensors") for network in networks}
        except (OSError, ValueError, SafetensorError):
            return None
        if not isinstance(record, dict) or any(
            _shapes(states[n]) != _shapes(networks[n].state_dict()) for n in networks
        ):
            return None
        for network, module in networks.items():
            module.load_state_dict(states[network])
        return record


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def key_of(*parts: object) -> str:
    """One hash over everything a stage depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def use_threads(count: int) -> None:
    """CPU threads for PyTorch; 0 leaves its own choice."""
    if count:
        torch.set_num_threads(count)
