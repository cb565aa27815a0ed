"""The bundle's routing over a backend that packs whole requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mope.predictor import layout
from mope.predictor.backends import Packed, checked
from mope.predictor.config import BundleConfig
from mope.predictor.inputs import Inputs
from mope.predictor.mixture import mix
from mope.predictor.router import softmax
from mope.types import BUCKETS

FloatArray = NDArray[np.float64]


def packed_outputs(
    backend: Packed, config: BundleConfig, networks: Sequence[str], inputs: Inputs
) -> dict[str, FloatArray]:
    """Outputs of several networks by name, each [n, outputs]; what they share is computed once."""
    found = backend.outputs(networks, inputs) if len(inputs) else {}
    return {name: checked(out, config, name, len(inputs)).astype(np.float64) for name, out in found.items()}


def packed_answer(
    backend: Packed, config: BundleConfig, inputs: Inputs, lexical: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Log quantiles [n, K] and router probabilities [n, 3] by the bundle's routing; `lexical` [n, 3] where asked.

    Soft routing is one pass of all experts and the router; hard routing by the encoder router stays on the device.
    """
    encoder, known = config.router != "lexical", config.router != "encoder"
    if config.routing == "soft":
        networks = [*BUCKETS, *([layout.ENCODER_ROUTER] if encoder else [])]
        outputs = packed_outputs(backend, config, networks, inputs)
        own = softmax(outputs[layout.ENCODER_ROUTER]) if encoder else lexical
        chances = (lexical + own) / 2 if known else own
        return mix(np.stack([outputs[name] for name in BUCKETS], axis=1), chances, config.quantiles), chances
    if encoder:
        read, logs = backend.routed(inputs, lexical.astype(np.float32) if known else None)
        chances = checked(read, config, layout.ENCODER_ROUTER, len(inputs)).astype(np.float64)
    else:
        chances, logs = lexical, backend.chosen(inputs, lexical.argmax(1))
    return checked(logs, config, BUCKETS[0], len(inputs)).astype(np.float64), chances
