"""Networks in PyTorch: the reference backend, and the one training uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mope.errors import BundleError
from mope.predictor.config import BundleConfig
from mope.predictor.encoder import Stack
from mope.predictor.expert import Expert
from mope.predictor.inputs import Batch
from mope.predictor.layout import ENCODER_ROUTER, TRUNK, read_arrays, weights_file


def build(network: str, config: BundleConfig, dropout: float = 0.1) -> nn.Module:
    """An untrained network of this bundle's shape."""
    if network == TRUNK:
        return Stack(config.encoder, 0, config.shared_layers, dropout)
    return Expert(config, config.shared_layers, quantiles=network != ENCODER_ROUTER, dropout=dropout)


class TorchBackend:
    """Loads each network when it is first asked for."""

    name = "torch"

    def __init__(
        self, folder: Path, config: BundleConfig, networks: dict[str, nn.Module] | None = None
    ) -> None:
        self.folder, self.config = folder, config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.networks: dict[str, nn.Module] = {}
        for name, module in (networks or {}).items():
            self.networks[name] = module.to(self.device).eval()

    def has(self, network: str) -> bool:
        """Whether the weights are there."""
        return network in self.networks or (self.folder / weights_file(network)).is_file()

    def shared(self, batch: Batch) -> Tensor:
        """Hidden states [T, S, H] of the trunk, or the ids [T, S]."""
        ids = torch.from_numpy(batch.ids).to(self.device)
        if not self.config.shared_layers:
            return ids
        with torch.inference_mode():
            out: Tensor = self._network(TRUNK)(ids, self._to(batch.segments), self._to(batch.mask))
        return out

    def run(self, network: str, batch: Batch, shared: Tensor) -> NDArray[np.float32]:
        """Outputs [B, outputs] of one network."""
        rest = [self._to(a) for a in (batch.segments, batch.mask, batch.text, batch.features, batch.model)]
        with torch.inference_mode():
            out: NDArray[np.float32] = self._network(network)(shared, *rest).float().cpu().numpy()
        return out

    def _to(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _network(self, name: str) -> nn.Module:
        if name not in self.networks:
            self.networks[name] = load_network(name, self.folder, self.config).to(self.device).eval()
        return self.networks[name]


def load_network(name: str, folder: Path, config: BundleConfig) -> nn.Module:
    """A network with the bundle's weights; shapes that do not fit the config are refused before any allocation."""
    file = weights_file(name)
    arrays = read_arrays(folder, file, config.most_bytes)
    with torch.device("meta"):
        module = build(name, config)
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    if wanted != {key: array.shape for key, array in arrays.items()}:
        raise BundleError(
            f"{file} does not hold the network that config.json describes", "weights of that shape"
        )
    module.load_state_dict(
        {k: torch.from_numpy(np.asarray(a)).float() for k, a in arrays.items()}, assign=True
    )
    return module
