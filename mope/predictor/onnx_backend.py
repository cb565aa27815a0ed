"""Networks in ONNX Runtime: what the base install predicts with.

On a CPU every text is run alone. One run for many texts pads all to the longest, which costs more than it saves, and
would share the scales of int8 activations: a forecast would move with its neighbours. docs/export.md has the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

from mope.errors import BundleError
from mope.predictor.config import BundleConfig
from mope.predictor.inputs import Batch
from mope.predictor.layout import TRUNK, inside, onnx_file

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@dataclass(frozen=True)
class Session:
    """How ONNX Runtime runs a graph.

    `threads` inside an operator; `spin`: they wait for work by spinning, faster on idle cores and slower on busy
    ones; `bind`: what a network gives stays where it is for the next. By itself on a GPU only: on a CPU nothing moves
    anyway, and binding takes 0.3 ms a forecast.
    """

    threads: int = 1
    spin: bool = False
    bind: bool | None = None


class Hidden:
    """What the networks above the trunk read: one value [t, S, H] for each run of texts, in order."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """The values as arrays."""
        return [_array(value) for value in self.values]

    def __getitem__(self, texts: NDArray[np.int64]) -> Hidden:
        """Those of some texts, in their order."""
        if len(self.values) > 1:
            return Hidden([self.values[text] for text in texts])
        (together,) = self.arrays
        return self if len(texts) == len(together) else Hidden([together[texts]])


class OnnxBackend:
    """Opens each graph when it is first asked for. `kind` of graphs: fp32, fp16 or int8."""

    def __init__(
        self, folder: Path, config: BundleConfig, *, kind: str = "int8", session: Session | None = None
    ) -> None:
        self.folder, self.config, self.kind, self.session = folder, config, kind, session or Session()
        self.name = "onnx" if kind == "fp32" else f"onnx-{kind}"
        self.providers = _providers()
        self.binds = self.providers[0] == CUDA if self.session.bind is None else self.session.bind
        self.sessions: dict[str, ort.InferenceSession] = {}

    def has(self, network: str) -> bool:
        """Whether the graph is there."""
        return (self.folder / onnx_file(network, self.kind)).is_file()

    def shared(self, batch: Batch) -> Hidden:
        """Hidden states of the trunk, or the ids, of each run of texts."""
        return Hidden([self._trunk(part) for part in self._runs(batch)])

    def run(self, network: str, batch: Batch, shared: Hidden) -> NDArray[np.float32]:
        """Outputs [B, outputs] of one network."""
        parts = self._runs(batch)
        found = [
            _array(self._compute(network, {
                "x": value, "segments": part.segments, "mask": part.mask, "text": part.text,
                "features": part.features, "model": part.model,
            })) for part, value in zip(parts, shared.values, strict=True)
        ]  # fmt: skip
        if len(found) == 1:
            return found[0]
        out = np.empty((len(batch.text), *found[0].shape[1:]), np.float32)
        for place, rows in enumerate(found):
            out[batch.text == place] = rows
        return out

    def _trunk(self, part: Batch) -> Any:
        if not self.config.shared_layers:
            return part.ids
        return self._compute(TRUNK, {"x": part.ids, "segments": part.segments, "mask": part.mask})

    def _runs(self, batch: Batch) -> list[Batch]:
        """The batch as it is on a GPU; text by text, without padding, on a CPU."""
        return [batch] if self.providers[0] != CPU else batch.alone()

    def _compute(self, network: str, feed: Mapping[str, Any]) -> Any:
        session = self._opened(network)
        # An input that the graph does not read (segments above the trunk) is not among its inputs.
        given = {node.name: feed[node.name] for node in session.get_inputs()}
        try:
            return self._bound(session, given) if self.binds else session.run(None, given)[0]
        except Exception as error:  # noqa: BLE001 - the runtime's exceptions share no other base
            raise BundleError(
                f"{onnx_file(network, self.kind)} does not fit config.json or the tokenizer ({str(error)[:120]})",
                "the graph of this bundle",
                "export it again",
            ) from None

    def _bound(self, session: ort.InferenceSession, given: Mapping[str, Any]) -> Any:
        binding = session.io_binding()
        for name, value in given.items():
            binding.bind_ortvalue_input(name, _value(value))
        device = "cuda" if self.providers[0] == CUDA else "cpu"
        binding.bind_output(session.get_outputs()[0].name, device)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def _opened(self, network: str) -> ort.InferenceSession:
        if network not in self.sessions:
            self.sessions[network] = self._open(onnx_file(network, self.kind))
        return self.sessions[network]

    def _open(self, name: str) -> ort.InferenceSession:
        path = inside(self.folder, name, self.config.most_bytes)
        try:
            # The fallback is for failing accelerators; on the CPU it would only talk on stdout and try again.
            return ort.InferenceSession(
                path, session_options(self.session), providers=self.providers,
                enable_fallback=len(self.providers) > 1,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - the runtime's exceptions share no other base
            raise BundleError(
                f"{name} cannot be opened ({str(error)[:120]})", "a whole ONNX file", "export it again"
            ) from None


def session_options(session: Session) -> ort.SessionOptions:
    """The runtime's own form of `session`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = session.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(session.spin)))
    # Weights stored as int8 are unpacked when the graph is opened, not in every run.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _value(array: Any) -> Any:
    """An array as the runtime's value, without a copy on the CPU; a value as it is."""
    if isinstance(array, np.ndarray):
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    return array


def _array(value: Any) -> NDArray[Any]:
    array: NDArray[Any] = value if isinstance(value, np.ndarray) else value.numpy()
    return array


def _providers() -> list[str]:
    """CUDA where this build of the runtime has it, then the CPU."""
    return [name for name in (CUDA, CPU) if name in ort.get_available_providers()]
