"""The experts' networks alone, end to end: packed in fused kernels, and in everything else that can run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mope.bench.kernels.device import card, device
from mope.bench.kernels.timing import Budget, Call, in_turns
from mope.kernels import missing, reference
from mope.kernels.roofline import Shape, report
from mope.predictor.config import BundleConfig, EncoderConfig
from mope.predictor.engine import Engine
from mope.predictor.graphs import Buckets
from mope.predictor.inputs import Inputs
from mope.predictor.made_up import made_up_config, made_up_inputs, made_up_networks
from mope.predictor.packing import pack
from mope.predictor.stacks import assembled
from mope.types import BUCKETS

ROUTINGS = {"soft": (), "hard balanced": (1 / 3, 1 / 3, 1 / 3), "hard skewed": (0.8, 0.15, 0.05)}
MEDIAN, SIGMA = 60, 1.2  # of the log-normal lengths: short chats with a long tail, as in ShareGPT
MIXED = "mixed"

Runner = Callable[[Inputs, NDArray[np.int64]], Call]


@dataclass(frozen=True)
class Case:
    """A batch: texts of `tokens` tokens each, or MIXED: log-normal, cut at 512."""

    batch: int
    tokens: int | str
    routing: str

    def lengths(self, seed: int = 0) -> list[int]:
        """Tokens of each text."""
        if isinstance(self.tokens, int):
            return [self.tokens] * self.batch
        rng = np.random.default_rng(seed)
        drawn = np.exp(np.log(MEDIAN) + SIGMA * rng.standard_normal(self.batch))
        return [int(n) for n in drawn.clip(4, 512)]

    def wanted(self, seed: int = 0) -> NDArray[np.int64]:
        """The experts of each text: all three, or one drawn from the routing's shares."""
        if self.routing == "soft":
            return np.tile(np.arange(3), (self.batch, 1))
        rng = np.random.default_rng(seed + 1)
        return rng.choice(3, (self.batch, 1), p=ROUTINGS[self.routing]).astype(np.int64)


def grid(on_gpu: bool) -> Iterator[Case]:
    """On a GPU every batch and length that is named in docs/kernels.md; on a CPU what it can do in minutes."""
    batches, lengths = ((1, 2, 4, 8, 16, 32, 128), (32, 64, 128, 256, 512)) if on_gpu else ((1, 8), (32, 128))
    for batch in batches:
        for tokens in (*lengths, MIXED):
            yield Case(batch, tokens, "soft")
        for routing in ("hard balanced", "hard skewed") if batch > 1 else ("hard balanced",):
            yield Case(batch, 128, routing)


def time_passes(
    name: str, encoder: EncoderConfig, cases: Sequence[Case], budget: Budget, folder: Path, with_compile: bool
) -> list[dict[str, object]]:
    """Milliseconds of each case by each runner, beside the roofline; three separate encoders (no shared layers)."""
    config = made_up_config(encoder)
    networks = made_up_networks(config, BUCKETS, str(device()))
    runners = available(config, networks, folder, with_compile)
    e = encoder
    shape = Shape(e.hidden_size, e.num_hidden_layers, e.intermediate_size)
    rows: list[dict[str, object]] = []
    slow: dict[
        str, float
    ] = {}  # operations of the smallest case on which a runner was slow: larger ones leave it out
    for case in cases:
        lengths, wanted = case.lengths(), case.wanted()
        inputs = made_up_inputs(lengths, config)
        floor = report(lengths, shape, wanted.shape[1])
        gflops = float(str(floor["gflops"]))
        calls = {
            key: run(inputs, wanted) for key, run in runners.items() if gflops < slow.get(key, float("inf"))
        }
        times = in_turns(calls, budget)
        for key, call in calls.items():
            if isinstance(call, PackedCall) and (ms := call.device_ms()) is not None:
                times[key]["device_ms"] = round(ms, 4)
        for key, found in times.items():
            if found["p50_ms"] > 1e3 * budget.slow_s:
                slow[key] = min(gflops, slow.get(key, gflops))
        row = {
            "encoder": name,
            **asdict(case),
            "texts_tokens": sum(lengths),
            "roofline": floor,
            "runners": times,
        }
        rows.append(row | _shares(floor, times))
    return rows


def _shares(floor: Mapping[str, object], times: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    """TFLOP/s of each runner, and which share of the card's floor and peak it reaches, on a known card."""
    gflops = float(str(floor["gflops"]))
    found: dict[str, object] = {
        "tflops": {name: round(gflops / row["p50_ms"], 3) for name, row in times.items()}
    }
    known = card()
    if known is not None:
        floors = floor["floor_us"]
        assert isinstance(floors, dict)
        us = float(floors[known[0]])
        found["share_of_floor"] = {name: round(us / 1e3 / row["p50_ms"], 3) for name, row in times.items()}
        found["share_of_peak"] = {
            name: round(gflops * 1e12 / row["p50_ms"] / known[1].flops_s, 3) for name, row in times.items()
        }
    return found


def available(
    config: BundleConfig, networks: dict[str, nn.Module], folder: Path, with_compile: bool
) -> dict[str, Runner]:
    """Every way to run these networks that works here, by name."""
    on_gpu, half = device().type == "cuda", torch.bfloat16
    used = halved(networks, half) if on_gpu else networks
    found: dict[str, Runner] = {
        "torch eager, padded": partial(padded, used, False),
        "torch SDPA, padded": partial(padded, used, True),
    }
    if with_compile:
        found["torch.compile, padded"] = partial(padded, compiled(used), True)
    states = {name: module.state_dict() for name, module in networks.items()}
    if not missing():
        from mope.kernels import fused

        found["triton, packed"] = packed(fused, states, config, half if on_gpu else torch.float32)
    if not on_gpu:
        found["torch, packed"] = packed(reference, states, config, torch.float32)
    from mope.bench.kernels.onnx import exported

    session = exported(networks[BUCKETS[0]], config, folder)
    if session is not None:
        found["onnxruntime, padded"] = session
    return found


def halved(networks: dict[str, nn.Module], dtype: torch.dtype) -> dict[str, nn.Module]:
    """Copies whose encoders compute in `dtype`; heads stay in FP32, as the engine's do."""
    copies = {name: deepcopy(module) for name, module in networks.items()}
    for module in copies.values():
        module.get_submodule("encoder").to(dtype)
    return copies


def compiled(networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The networks under torch.compile, for any batch and length."""
    made = {name: torch.compile(module, dynamic=True) for name, module in networks.items()}
    return cast(dict[str, nn.Module], made)


def padded(
    networks: dict[str, nn.Module], fused_attention: bool, inputs: Inputs, wanted: NDArray[np.int64]
) -> Call:
    """Each expert on its own rows, padded to their longest; the arrays lie on the device beforehand."""
    parts = []
    for expert, name in enumerate(BUCKETS):
        rows = np.flatnonzero((wanted == expert).any(axis=1))
        if len(rows):
            b = inputs.batch(rows)
            arrays = (b.ids, b.segments, b.mask, b.text, b.features, b.model)
            parts.append((networks[name], [torch.from_numpy(a).to(device()) for a in arrays]))
    kinds = [SDPBackend.MATH] if not fused_attention else list(_FUSED)

    def call() -> list[object]:
        with torch.inference_mode(), sdpa_kernel(kinds):
            outs = [network(*given) for network, given in parts]
            return [out.float().cpu() for out in outs]

    return call


_FUSED = (
    SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH
)  # fmt: skip


def packed(
    ops: ModuleType,
    states: Mapping[str, Mapping[str, torch.Tensor]],
    config: BundleConfig,
    dtype: torch.dtype,
) -> Runner:
    """All experts in one pass; packing and the copies to and from the device are timed with it."""
    engine = Engine(ops, assembled(states, config, dtype, device()))
    buckets = Buckets(device())
    return lambda inputs, wanted: PackedCall(engine, buckets, inputs, wanted)


@dataclass(frozen=True)
class PackedCall:
    """One packed pass, packing and copies included; `device_ms` is its graph alone, copies included."""

    engine: Engine
    buckets: Buckets
    inputs: Inputs
    wanted: NDArray[np.int64]

    def __call__(self) -> object:
        given = pack(self.inputs, np.arange(len(self.inputs)), self.wanted, len(BUCKETS))
        return self.buckets.run("answers", self.engine.answers, given)

    def device_ms(self, repeats: int = 50) -> float | None:
        """Median milliseconds of the graph by the device's clock; None where there is none."""
        self()
        graph = next(reversed(self.buckets.kept.values())).graph
        if graph is None:
            return None
        taken = []
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            taken.append(start.elapsed_time(end))
        return float(np.median(taken))
