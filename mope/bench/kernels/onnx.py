"""One made-up expert in ONNX Runtime, standing for all three, which cost the same."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mope.bench.kernels.timing import Call
from mope.predictor.config import BundleConfig
from mope.predictor.expert import Expert
from mope.predictor.inputs import Inputs
from mope.predictor.made_up import made_up_inputs
from mope.types import BUCKETS

if TYPE_CHECKING:
    from mope.bench.kernels.passes import Runner

NAMES = ("x", "segments", "mask", "text", "features", "model")


def exported(network: nn.Module, config: BundleConfig, folder: Path) -> Runner | None:
    """A runner of the exported network, on the GPU where the runtime has it; None without the `export` extra."""
    if find_spec("onnxscript") is None or find_spec("onnx") is None:
        return None
    path = folder / "expert.onnx"
    _export(network, config, path)
    import onnxruntime as ort  # type: ignore[import-untyped]

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in ort.get_available_providers()]
    session: Any = ort.InferenceSession(path, options, providers=providers)
    known = {node.name for node in session.get_inputs()}

    def runner(inputs: Inputs, experts: NDArray[np.int64]) -> Call:
        feeds = []
        for expert in range(len(BUCKETS)):
            rows = np.flatnonzero((experts == expert).any(axis=1))
            if len(rows):
                b = inputs.batch(rows)
                arrays = (b.ids, b.segments, b.mask, b.text, b.features, b.model)
                feeds.append({k: v for k, v in zip(NAMES, arrays, strict=True) if k in known})
        return lambda: [session.run(None, feed) for feed in feeds]

    return runner


def _export(network: nn.Module, config: BundleConfig, path: Path) -> None:
    from torch.export import Dim

    b = made_up_inputs([9, 5, 7], config).batch(np.arange(3))
    arrays = (b.ids, b.segments, b.mask, b.text, b.features, b.model)
    given = tuple(torch.from_numpy(a) for a in arrays)
    texts, size = Dim("texts", min=2), Dim("size", min=2, max=config.text.max_tokens)
    shapes = ({0: texts, 1: size},) * 3 + ({0: texts},) * 3
    own = Expert(config, 0).eval()
    own.load_state_dict(network.state_dict())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of operators that are not used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            own, given, path, input_names=NAMES, output_names=["out"], dynamic_shapes=shapes, dynamo=True,
            verbose=False,
        )  # fmt: skip
