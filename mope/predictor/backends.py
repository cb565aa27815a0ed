"""What computes the networks. A backend is picked by one word and imported when used."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mope.errors import BundleError, ConfigError
from mope.predictor.config import BundleConfig
from mope.predictor.inputs import Batch, Inputs
from mope.predictor.layout import ENCODER_ROUTER, TRUNK, onnx_file, weights_file
from mope.types import BUCKETS

NAMES = ("auto", "onnx", "onnx-fp16", "onnx-int8", "torch", "triton")


class Backend(Protocol):
    """Computes networks on batches; `shared` once a batch, then `run` for each network that is wanted."""

    name: str

    def shared(self, batch: Batch) -> Any:
        """What every network reads: the trunk's hidden states, or the ids where nothing is shared."""

    def run(self, network: str, batch: Batch, shared: Any) -> NDArray[np.float32]:
        """Outputs of a network for each row, float32 [B, outputs]."""

    def has(self, network: str) -> bool:
        """Whether the bundle carries this network for this backend."""


@runtime_checkable
class Packed(Backend, Protocol):
    """A backend that takes whole requests: it packs them, and may route them, for itself."""

    def outputs(self, networks: Sequence[str], inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        """Outputs of several networks for every row, each float32 [n, outputs]."""

    def chosen(self, inputs: Inputs, buckets: NDArray[np.int64]) -> NDArray[np.float32]:
        """Each row's answer [n, K] by the expert number `buckets[row]` alone."""

    def routed(
        self, inputs: Inputs, lexical: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Chances [n, 3] by the encoder router, or its mean with `lexical`, and the likeliest expert's [n, K]."""


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
    if name == "triton" and (reason := _no_triton()):
        warnings.warn(
            f"backend 'triton': {reason}, so the torch backend answers instead", RuntimeWarning, stacklevel=3
        )
        name = "torch"
    if name == "triton":
        from mope.predictor.triton_backend import TritonBackend

        return TritonBackend(folder, config)
    if name == "torch":
        from mope.predictor.torch_backend import TorchBackend

        return TorchBackend(folder, config)
    from mope.predictor.onnx_backend import OnnxBackend, Session

    kind = name.removeprefix("onnx").removeprefix("-") or "fp32"
    return OnnxBackend(folder, config, kind=kind, session=Session(threads=threads))


def ask(
    backend: Backend, config: BundleConfig, network: str, batch: Batch, shared: Any
) -> NDArray[np.float32]:
    """A network's answer [B, outputs]; raises `BundleError` where it is of another width or no number."""
    return checked(backend.run(network, batch, shared), config, network, len(batch.text))


def checked(out: NDArray[np.float32], config: BundleConfig, network: str, rows: int) -> NDArray[np.float32]:
    """`out` [rows, outputs] as it came; raises `BundleError` where it is of another width or no number."""
    width = len(BUCKETS) if network == ENCODER_ROUTER else len(config.quantiles)
    if out.shape != (rows, width):
        raise BundleError(f"network {network} with outputs of shape {out.shape}", f"{width} a row")
    if not np.isfinite(out).all():
        raise BundleError(f"network {network} with outputs that are no numbers", "undamaged weights")
    return out


def _no_triton() -> str:
    from mope.extras import require
    from mope.kernels import missing

    require("torch", "the triton backend")
    return missing()


def _files(network: str) -> dict[str, str]:
    return {
        "onnx-int8": onnx_file(network, "int8"),
        "onnx": onnx_file(network, "fp32"),
        "onnx-fp16": onnx_file(network, "fp16"),
        "torch": weights_file(network),
    }
