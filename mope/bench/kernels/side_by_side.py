"""Whole forecasts of one bundle, from text to interval, by every backend it has, in turns."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch

from mope.bench.kernels.passes import compiled
from mope.bench.kernels.timing import Budget, Call, in_turns, summary
from mope.data.records import LengthData
from mope.evaluation.bootstrap import Draws, Groups, paired_difference
from mope.kernels import missing, reference
from mope.predictor.batcher import Batcher
from mope.predictor.bundle import MoPE
from mope.predictor.graphs import Buckets, Forward, Outputs
from mope.predictor.layout import TRUNK, onnx_file, weights_file
from mope.predictor.packing import Pack
from mope.predictor.triton_backend import TritonBackend
from mope.types import Request

EAGER = "torch"
BATCHES = (1, 32)


def opened(source: str | None, threads: int, with_compile: bool) -> dict[str, MoPE]:
    """The bundle once for each backend that works here, PyTorch's eager one first."""
    first = MoPE.from_pretrained(source, threads=threads)
    probe = TRUNK if first.config.shared_layers else "medium"
    has = {
        EAGER: (first.folder / weights_file(probe)).is_file(),
        "onnx": (first.folder / onnx_file(probe, "fp32")).is_file(),
        "onnx-int8": (first.folder / onnx_file(probe, "int8")).is_file(),
    }
    has["triton"] = has[EAGER] and not missing()
    found = {
        name: MoPE.from_pretrained(source, backend=name, threads=threads)
        for name, there in has.items()
        if there
    }
    if has[EAGER] and with_compile:
        from mope.predictor.torch_backend import TorchBackend

        bundle = MoPE.from_pretrained(source, backend=EAGER)
        assert isinstance(bundle.backend, TorchBackend)
        bundle.predict("Load every network.")
        bundle.backend.networks = compiled(bundle.backend.networks)
        found["torch.compile"] = bundle
    return found


def forecasts(
    bundles: dict[str, MoPE], requests: Sequence[Request], budget: Budget
) -> dict[str, dict[str, object]]:
    """Milliseconds of `predict` by routing and batch, in turns over the same requests."""
    found: dict[str, dict[str, object]] = {}
    default = {name: bundle.config for name, bundle in bundles.items()}
    for routing in ("hard", "soft"):
        for batch in BATCHES:
            calls: dict[str, Call] = {}
            for name, bundle in bundles.items():
                bundle.config = replace(default[name], routing=routing)
                calls[name] = _walk(bundle, requests, batch)
            times = in_turns(calls, budget)
            row: dict[str, object] = dict(times)
            if EAGER in times:
                for key in ("p50_ms", "cpu_p50_ms"):
                    eager = times[EAGER][key]
                    row[f"{key} over eager torch"] = {
                        name: round(of[key] / eager, 3) for name, of in times.items()
                    }
            found[f"{routing}, batch {batch}"] = row
    for name, bundle in bundles.items():
        bundle.config = default[name]
    return found


class NoNetworks(Buckets):
    """Passes that answer at once, with the same `outputs` rising quantiles for all."""

    outputs = 0

    def run(self, name: str, forward: Forward, given: Pack) -> Outputs:
        """Made-up outputs of the right shape."""
        size = given.size
        out = np.tile(np.linspace(3.0, 6.0, self.outputs, dtype=np.float32), (size.answers, 1))
        return {"out": out, "chances": np.full((size.batch, 3), 1 / 3, np.float32)}


def host(bundle: MoPE, requests: Sequence[Request], budget: Budget) -> dict[str, dict[str, float]]:
    """Milliseconds of `predict` by the packed backend without its networks: what the host alone takes."""
    backend = TritonBackend(bundle.folder, bundle.config, ops=reference)
    backend.buckets = NoNetworks(backend.device)
    backend.buckets.outputs = len(bundle.config.quantiles)
    found: dict[str, dict[str, float]] = {}
    for routing in ("hard", "soft"):
        made = MoPE(bundle.folder, replace(bundle.config, routing=routing), backend, bundle.tokenizer)
        for batch in BATCHES:
            found |= in_turns({f"{routing}, batch {batch}": _walk(made, requests, batch)}, budget)
    return found


def _walk(bundle: MoPE, requests: Sequence[Request], batch: int) -> Call:
    """Calls that walk through the requests, so that no cache sees the same text twice in a row."""
    place = [0]

    def call() -> object:
        start = place[0]
        place[0] += batch
        return bundle.predict([requests[(start + i) % len(requests)] for i in range(batch)])

    return call


def accuracy(bundles: dict[str, MoPE], data: LengthData) -> dict[str, dict[str, float]]:
    """MAE of each backend in tokens, each request forecast alone, and its difference to the first backend.

    The 95 % interval of the difference is a bootstrap over conversations.
    """
    truth, groups = data.lengths, Groups.of(data.groups)
    off = {
        name: np.abs(np.array([bundle.predict(r).tokens for r in data.requests]) - truth)
        for name, bundle in bundles.items()
    }
    first = next(iter(off))
    found = {}
    for name, error in off.items():
        gap = paired_difference(error, off[first], np.ones(len(truth)), groups, Draws())
        found[name] = {
            "mae": float(error.mean()), f"minus {first}": gap.value, "low": gap.low, "high": gap.high,
            "percent": 100 * gap.value / float(off[first].mean()),
        }  # fmt: skip
    return {name: {key: round(value, 3) for key, value in row.items()} for name, row in found.items()}


def callers(bundle: MoPE, requests: Sequence[Request], count: int = 32, each: int = 30) -> dict[str, float]:
    """Milliseconds of a forecast, tokeniser and waiting included, with `count` threads asking one after another."""
    taken: list[float] = []
    lock = threading.Lock()

    def ask(worker: int, batcher: Batcher) -> None:
        for i in range(each):
            start = perf_counter()
            batcher.forecast(requests[(worker * each + i) % len(requests)])
            spent = perf_counter() - start
            with lock:
                taken.append(spent)

    bundle.predict(list(requests[:count]))
    with Batcher.of(bundle) as batcher:
        threads = [threading.Thread(target=ask, args=(worker, batcher)) for worker in range(count)]
        start = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole = perf_counter() - start
        batches = batcher.counts.batches
    per_s = round(len(taken) / whole, 1)
    return summary(taken) | {
        "callers": count,
        "forecasts_per_s": per_s,
        "mean_batch": round(len(taken) / batches, 1),
    }


def threads_of_torch(threads: int) -> None:
    """PyTorch computes with this many threads, as ONNX Runtime is told to."""
    torch.set_num_threads(threads)
