"""All experts at once in fused kernels: requests in, packed passes, answers out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from mope.predictor.config import BundleConfig
from mope.predictor.engine import Engine, Ops
from mope.predictor.graphs import Buckets, Forward, Outputs
from mope.predictor.inputs import Batch, Inputs
from mope.predictor.layout import ENCODER_ROUTER, PROXY, TRUNK, weights_file
from mope.predictor.packing import pack, portions
from mope.predictor.stacks import Weights, assembled
from mope.predictor.torch_backend import load_network
from mope.types import BUCKETS

TOKENS = 16384  # texts of one pass: enough to fill a GPU, few enough to bound its memory
ROWS = 256
Floats = NDArray[np.float32]


class TritonBackend:
    """Loads every network of the bundle at once. Safe to call from several threads; passes run one by one."""

    name = "triton"

    def __init__(
        self,
        folder: Path,
        config: BundleConfig,
        *,
        ops: Ops | ModuleType | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.folder, self.config = folder, config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        self.engine = Engine(_fused() if ops is None else ops, self._load())
        self.names = self.engine.weights.names
        self.buckets = Buckets(self.device)

    def has(self, network: str) -> bool:
        """Whether the weights are there."""
        return (self.folder / weights_file(network)).is_file()

    def shared(self, batch: Batch) -> NDArray[np.int64]:
        """The ids: a packed pass computes the trunk itself."""
        return batch.ids

    def run(self, network: str, batch: Batch, shared: object) -> Floats:
        """Outputs [B, outputs] of one network for a padded batch."""
        seen = batch.mask.astype(bool)
        inputs = Inputs(
            batch.ids[seen].astype(np.int32), batch.segments[seen].astype(np.int8),
            np.cumsum([0, *batch.mask.sum(1)]), batch.text, batch.features, batch.model,
        )  # fmt: skip
        return self.outputs([network], inputs)[network]

    def outputs(self, networks: Sequence[str], inputs: Inputs) -> dict[str, Floats]:
        """Outputs of several networks for every row, each [n, outputs], in one pass for all of them."""
        places = [self.names.index(name) for name in networks]
        wanted = np.tile(np.array(places, np.int64), (len(inputs), 1))
        found = self._passes("answers", self.engine.answers, inputs, wanted)["out"]
        found = found.reshape(len(inputs), len(places), -1)
        return {name: found[:, i, : self._width(name)] for i, name in enumerate(networks)}

    def chosen(self, inputs: Inputs, buckets: NDArray[np.int64]) -> Floats:
        """Each row's answer [n, K] by the expert number `buckets[row]` alone."""
        return self._passes("answers", self.engine.answers, inputs, buckets[:, None])["out"][
            :, : self._width(BUCKETS[0])
        ]

    def routed(self, inputs: Inputs, lexical: Floats | None) -> tuple[Floats, Floats]:
        """Chances [n, 3] by the encoder router, or by its mean with `lexical`, and the likeliest expert's [n, K]."""
        router = np.full((len(inputs), 1), self.names.index(ENCODER_ROUTER), np.int64)
        if lexical is None:
            found = self._passes("routed", self.engine.routed, inputs, router)
        else:
            found = self._passes("averaged", self.engine.averaged, inputs, router, lexical)
        return found["chances"], found["out"][:, : self._width(BUCKETS[0])]

    def _passes(
        self, name: str, forward: Forward, inputs: Inputs, wanted: NDArray[np.int64], lexical: Floats | None = None
    ) -> Outputs:  # fmt: skip
        """Outputs of all portions, one after another, without the room that buckets leave."""
        parts: list[Outputs] = []
        for rows in portions(inputs, TOKENS, ROWS):
            given = pack(inputs, rows, wanted[rows], len(self.names), lexical)
            found = self.buckets.run(name, forward, given)
            kept = {"out": len(rows) * wanted.shape[1], "chances": len(rows)}
            parts.append({key: value[: kept[key]] for key, value in found.items()})
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _width(self, network: str) -> int:
        return len(BUCKETS) if network == ENCODER_ROUTER else len(self.config.quantiles)

    def _load(self) -> Weights:
        names = (*BUCKETS, *(name for name in (ENCODER_ROUTER, PROXY) if self.has(name)))
        if self.config.shared_layers:
            names = (TRUNK, *names)
        states = {name: load_network(name, self.folder, self.config).state_dict() for name in names}
        return assembled(states, self.config, self.dtype, self.device)


def _fused() -> ModuleType:
    from mope.kernels import fused

    return fused
