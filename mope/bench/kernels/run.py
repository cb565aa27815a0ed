"""Everything of `mope bench kernels` in one document."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mope.bench.kernels import side_by_side
from mope.bench.kernels.device import device, facts
from mope.bench.kernels.numerics import errors
from mope.bench.kernels.passes import grid, time_passes
from mope.bench.kernels.timing import Budget
from mope.data.records import LengthData
from mope.errors import ConfigError
from mope.kernels import missing, roofline
from mope.kernels.roofline import Shape
from mope.predictor.bundle import MoPE
from mope.predictor.layout import TRUNK
from mope.predictor.made_up import SHAPES
from mope.predictor.torch_backend import TorchBackend, load_network
from mope.types import BUCKETS

ROOFLINE_BATCHES = (1, 2, 4, 8, 16, 32, 128)
NUMERICS_ROWS = 64
SECTIONS = ("roofline", "ops", "passes", "forecasts", "host", "callers", "accuracy", "numerics")
Log = Callable[[str], None]


def bench_kernels(
    source: str | None,
    data: LengthData,
    *,
    shapes: Sequence[str] | None = None,
    budget: Budget | None = None,
    threads: int = 1,
    with_compile: bool = False,
    with_accuracy: bool = True,
    only: Sequence[str] | None = None,
    log: Log = lambda _: None,
) -> dict[str, object]:
    """Device and versions, roofline, operations (on a GPU), passes of made-up experts, forecasts of a bundle.

    `data` are requests with lengths: all are asked, and (with `with_accuracy`) the error is told. `shapes` are
    encoders of `made_up.SHAPES`, `only` some of `SECTIONS`; all by default. Takes minutes; `log` hears what is being
    measured.
    """
    budget, shapes = budget or Budget(), shapes or tuple(SHAPES)
    wanted = set(only or SECTIONS) - (set() if with_accuracy else {"accuracy"})
    for unknown in sorted(set(shapes) - set(SHAPES)):
        raise ConfigError(f"shape {unknown!r}", f"one of {', '.join(SHAPES)}")
    for unknown in sorted(wanted - set(SECTIONS)):
        raise ConfigError(f"section {unknown!r}", f"one of {', '.join(SECTIONS)}")
    side_by_side.threads_of_torch(threads)
    on_gpu = device().type == "cuda"
    found: dict[str, object] = {"device": facts()}
    if "roofline" in wanted:
        found["roofline"] = rooflines()
    if "ops" in wanted:
        log("operations")
        found["ops"] = _ops() if on_gpu and not missing() else {"skipped": missing() or "no GPU is at hand"}
    if "passes" in wanted:
        found["passes"] = _passes(shapes, budget, with_compile, log)
    if wanted & {"forecasts", "host", "callers", "accuracy", "numerics"}:
        bundles = side_by_side.opened(source, threads, with_compile)
        found |= _bundle(bundles, data, wanted, budget, log)
    found["device_after"] = facts()
    return found


def _passes(shapes: Sequence[str], budget: Budget, with_compile: bool, log: Log) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in shapes:
        log(f"passes of three experts of {name}")
        cases = list(grid(device().type == "cuda"))
        with tempfile.TemporaryDirectory() as folder:
            rows += time_passes(name, SHAPES[name], cases, budget, Path(folder), with_compile)
    return rows


def _bundle(
    bundles: dict[str, MoPE], data: LengthData, wanted: set[str], budget: Budget, log: Log
) -> dict[str, object]:
    found: dict[str, object] = {}
    if "forecasts" in wanted:
        log("forecasts of the bundle")
        found["forecasts"] = side_by_side.forecasts(bundles, data.requests, budget)
    if "host" in wanted and side_by_side.EAGER in bundles:
        log("the host's part")
        found["host"] = side_by_side.host(bundles[side_by_side.EAGER], data.requests, budget)
    if "callers" in wanted:
        log("callers")
        fastest = bundles.get("triton") or bundles.get("onnx-int8") or next(iter(bundles.values()))
        found["callers"] = {fastest.backend.name: side_by_side.callers(fastest, data.requests)}
    if "accuracy" in wanted:
        log(f"error on {len(data)} requests")
        exact = {name: bundle for name, bundle in bundles.items() if name != "torch.compile"}
        found["accuracy"] = side_by_side.accuracy(exact, data)
    if "numerics" in wanted and side_by_side.EAGER in bundles:
        log("numerics")
        found["numerics"] = _numerics(bundles[side_by_side.EAGER], data)
    return found


def rooflines() -> dict[str, dict[str, object]]:
    """The least of each batch of texts of 128 tokens, hard and soft, for both encoders; and of a shared trunk."""
    found = {}
    for name, e in SHAPES.items():
        for shared in (0, e.num_hidden_layers - 1):
            shape = Shape(e.hidden_size, e.num_hidden_layers, e.intermediate_size, shared=shared)
            for batch in ROOFLINE_BATCHES:
                for routing, experts in (("hard", 1), ("soft", 3)):
                    key = f"{name}, {shared} shared layers, {batch} x 128, {routing}"
                    found[key] = roofline.report([128] * batch, shape, experts)
    return found


def _ops() -> list[dict[str, object]]:
    from mope.bench.kernels.ops import time_ops

    return time_ops()


def _numerics(bundle: MoPE, data: LengthData) -> dict[str, dict[str, float]]:
    assert isinstance(bundle.backend, TorchBackend)
    config = bundle.config
    names = [*([TRUNK] if config.shared_layers else []), *BUCKETS]
    networks = {name: load_network(name, bundle.folder, config).eval() for name in names}
    some = data.requests[:NUMERICS_ROWS]
    return errors(networks, config, bundle.inputs(some))
