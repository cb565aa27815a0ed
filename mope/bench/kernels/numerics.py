"""How far each type is from the same networks in FP64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from mope.bench.kernels.device import device
from mope.kernels import missing, reference
from mope.predictor.config import BundleConfig
from mope.predictor.engine import Engine
from mope.predictor.graphs import Buckets
from mope.predictor.inputs import Inputs
from mope.predictor.layout import TRUNK
from mope.predictor.packing import pack
from mope.predictor.stacks import assembled
from mope.types import BUCKETS


def errors(
    networks: Mapping[str, nn.Module], config: BundleConfig, inputs: Inputs
) -> dict[str, dict[str, float]]:
    """Largest and mean error of the experts' log1p(length) quantiles against FP64, by way of computing.

    The packed passes are the kernels' on a GPU; elsewhere their references, which round at the same places.
    """
    exact = in_double(networks, config, inputs)
    rows, wanted = np.arange(len(inputs)), np.tile(np.arange(3), (len(inputs), 1))
    given = pack(inputs, rows, wanted, len(BUCKETS))
    states = {name: module.state_dict() for name, module in networks.items() if name in (TRUNK, *BUCKETS)}
    found = {"torch FP32": _error(_eager(networks, config, inputs, torch.float32), exact)}
    ops = reference
    if device().type == "cuda" and not missing():
        from mope.kernels import fused as ops  # type: ignore[no-redef]
    for name, dtype in (("FP32", torch.float32), ("FP16", torch.float16), ("BF16", torch.bfloat16)):
        engine = Engine(ops, assembled(states, config, dtype, device()))  # type: ignore[arg-type]
        out = Buckets(device()).run("answers", engine.answers, given)["out"][: wanted.size]
        found[f"packed {name}"] = _error(out.reshape(exact.shape), exact)
    return found


def in_double(networks: Mapping[str, nn.Module], config: BundleConfig, inputs: Inputs) -> np.ndarray:
    """The experts' outputs in FP64 on the CPU, [n, 3, K]."""
    return _eager(networks, config, inputs, torch.float64)


def _eager(
    networks: Mapping[str, nn.Module], config: BundleConfig, inputs: Inputs, dtype: torch.dtype
) -> np.ndarray:
    from copy import deepcopy

    copies = {name: deepcopy(module).to("cpu", dtype) for name, module in networks.items()}
    batch = inputs.batch(np.arange(len(inputs)))
    ids, segments, mask, text, model = (
        torch.from_numpy(a) for a in (batch.ids, batch.segments, batch.mask, batch.text, batch.model)
    )
    features = torch.from_numpy(batch.features).to(dtype)
    with torch.inference_mode():
        shared = copies[TRUNK](ids, segments, mask) if config.shared_layers else ids
        outs = []
        for name in BUCKETS:
            hidden = copies[name].get_submodule("encoder")(shared, segments, mask)
            seen = mask.unsqueeze(-1).to(dtype)
            # As `Expert.forward`, which goes to FP32 before its head.
            pooled = torch.cat([(hidden * seen).sum(1) / seen.sum(1), hidden[:, 0]], dim=1)
            raw = copies[name].get_submodule("head")(pooled, text, features, model)
            steps = torch.cat([raw[:, :1], nn.functional.softplus(raw[:, 1:])], dim=1)
            outs.append(torch.cumsum(steps, dim=1).double().numpy())
    return np.stack(outs, axis=1)


def _error(got: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    away = np.abs(got.astype(np.float64) - exact)
    return {"largest": float(f"{away.max():.3g}"), "mean": float(f"{away.mean():.3g}")}
