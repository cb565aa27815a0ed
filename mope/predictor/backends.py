"""What computes the networks. A backend is picked by one word and imported when used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mope.errors import BundleError, ConfigError
from mope.predictor.config import BundleConfig
from mope.predictor.inputs import Batch
from mope.predictor.layout import ENCODER_ROUTER, TRUNK, onnx_file, weights_file
from mope.types import BUCKETS

NAMES = ("auto", "onnx", "onnx-int8", "torch")


class Backend(Protocol):
    """Computes networks on batches; `shared` once a batch, then `run` for each network that is wanted."""

    name: str

    def shared(self, batch: Batch) -> Any:
        """What every network reads: the trunk's hidden states, or the ids where nothing is shared."""

    def run(self, network: str, batch: Batch, shared: Any) -> NDArray[np.float32]:
        """Outputs of a network for each row, float32 [B, outputs]."""

    def has(self, network: str) -> bool:
        """Whether the bundle carries this network for this backend."""


def open_backend(folder: Path, config: BundleConfig, name: str = "auto", threads: int = 1) -> Backend:
    """The backend called `name`; "auto" takes int8 graphs, then fp32 graphs, then PyTorch."""
    if name not in NAMES:
        raise ConfigError(f"backend {name!r}", f"one of {', '.join(NAMES)}")
    probe = TRUNK if config.shared_layers else "medium"
    if threads < 1:
        raise ConfigError(f"{threads} threads", "at least 1")
    if name == "auto":
        found = [kind for kind, file in _files(probe).items() if (folder / file).is_file()]
        if not found:
            raise BundleError("a bundle without weights", f"one of {', '.join(_files(probe).values())}")
        name = found[0]
    if name == "torch":
        from mope.predictor.torch_backend import TorchBackend

        return TorchBackend(folder, config)
    from mope.predictor.onnx_backend import OnnxBackend

    return OnnxBackend(folder, config, int8=name == "onnx-int8", threads=threads)


def ask(
    backend: Backend, config: BundleConfig, network: str, batch: Batch, shared: Any
) -> NDArray[np.float32]:
    """A network's answer [B, outputs]; raises `BundleError` where it is of another width or no number."""
    out = backend.run(network, batch, shared)
    width = len(BUCKETS) if network == ENCODER_ROUTER else len(config.quantiles)
    if out.shape != (len(batch.text), width):
        raise BundleError(f"network {network} with outputs of shape {out.shape}", f"{width} a row")
    if not np.isfinite(out).all():
        raise BundleError(f"network {network} with outputs that are no numbers", "undamaged weights")
    return out


def _files(network: str) -> dict[str, str]:
    return {
        "onnx-int8": onnx_file(network, True),
        "onnx": onnx_file(network, False),
        "torch": weights_file(network),
    }
