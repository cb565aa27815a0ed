"""Networks in ONNX Runtime: what the base install predicts with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

from mope.errors import BundleError
from mope.predictor.config import BundleConfig
from mope.predictor.inputs import Batch
from mope.predictor.layout import TRUNK, inside, onnx_file


class OnnxBackend:
    """Opens each graph when it is first asked for; `threads` per forecast."""

    def __init__(self, folder: Path, config: BundleConfig, *, int8: bool, threads: int = 1) -> None:
        self.folder, self.config, self.int8, self.threads = folder, config, int8, threads
        self.name = "onnx-int8" if int8 else "onnx"
        self.sessions: dict[str, ort.InferenceSession] = {}

    def has(self, network: str) -> bool:
        """Whether the graph is there."""
        return (self.folder / onnx_file(network, self.int8)).is_file()

    def shared(self, batch: Batch) -> NDArray[np.generic]:
        """Hidden states [T, S, H] of the trunk, or the ids [T, S]."""
        if not self.config.shared_layers:
            return batch.ids
        feed = {"x": batch.ids, "segments": batch.segments, "mask": batch.mask}
        return self._compute(TRUNK, feed)

    def run(self, network: str, batch: Batch, shared: NDArray[np.generic]) -> NDArray[np.float32]:
        """Outputs [B, outputs] of one network."""
        feed = {
            "x": shared, "segments": batch.segments, "mask": batch.mask, "text": batch.text,
            "features": batch.features, "model": batch.model,
        }  # fmt: skip
        return self._compute(network, feed)

    def _compute(self, network: str, feed: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        session = self._session(network)
        # An input that the graph does not read (segments above the trunk) is not among its inputs.
        wanted = {node.name for node in session.get_inputs()}
        try:
            out: NDArray[np.float32] = session.run(None, {k: v for k, v in feed.items() if k in wanted})[0]
        except Exception as error:  # noqa: BLE001 - the runtime's exceptions share no other base
            raise BundleError(
                f"{onnx_file(network, self.int8)} does not fit config.json or the tokenizer ({str(error)[:120]})",
                "the graph of this bundle",
                "export it again",
            ) from None
        return out

    def _session(self, network: str) -> ort.InferenceSession:
        if network not in self.sessions:
            self.sessions[network] = self._open(network)
        return self.sessions[network]

    def _open(self, network: str) -> ort.InferenceSession:
        path = inside(self.folder, onnx_file(network, self.int8))
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            # The fallback is for failing accelerators; on the CPU it would only talk on stdout and try again.
            providers = _providers()
            return ort.InferenceSession(
                path, options, providers=providers, enable_fallback=len(providers) > 1
            )
        except Exception as error:  # noqa: BLE001 - the runtime's exceptions share no other base
            raise BundleError(
                f"{onnx_file(network, self.int8)} cannot be opened ({str(error)[:120]})",
                "a whole ONNX file",
                "export it again",
            ) from None


def _providers() -> list[str]:
    """CUDA where this build of the runtime has it, then the CPU."""
    return [
        p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in ort.get_available_providers()
    ]
