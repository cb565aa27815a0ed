"""Passes of like size share buffers and, on a GPU, one captured CUDA graph: copy in, compute, copy out.

Without a GPU (reference, interpreter) the same buffers are filled and the pass simply runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mope.predictor.packing import Pack, Size

KEPT = 64  # buckets; each holds a graph and its buffers
ALIGN = 64  # words: every view begins on 256 bytes, so that all kernels see aligned buffers
# What stands in the room that a batch leaves: cuts repeat their last value, so that the sequences there are empty.
REPEATED = ("cu", "tower_cu")
MISSING = {"text": -1, "sequence": -1}

Forward = Callable[[Mapping[str, Tensor], Size], dict[str, Tensor]]
Outputs = dict[str, NDArray[np.float32]]


class Bucket:
    """Buffers for passes of one size, and the pass on them."""

    def __init__(self, forward: Forward, first: Pack, size: Size, device: torch.device) -> None:
        rooms = shapes(first, size)
        ends = np.cumsum([-(-int(np.prod(shape)) // ALIGN) * ALIGN for shape in rooms.values()])
        on_gpu = device.type == "cuda"
        self.host = torch.zeros(int(ends[-1]), dtype=torch.int32, pin_memory=on_gpu)
        self.device = torch.zeros_like(self.host, device=device) if on_gpu else self.host
        begins = dict(zip(rooms, [0, *map(int, ends[:-1])], strict=True))
        self.inside = {name: _view(self.host, begins[name], rooms[name], name).numpy() for name in rooms}
        self.given = {name: _view(self.device, begins[name], rooms[name], name) for name in rooms}
        self.forward, self.size = forward, size
        self.graph: torch.cuda.CUDAGraph | None = None
        self.results: dict[str, Tensor] = {}

    def __call__(self, given: Pack) -> Outputs:
        """The outputs of a pass, with the bucket's spare rows behind them. Waits once, for the result."""
        for name, array in given.arrays.items():
            room = self.inside[name]
            room[: len(array)] = array
            room[len(array) :] = array[-1] if name in REPEATED else MISSING.get(name, 0)
        if self.device is self.host:
            return {name: out.numpy() for name, out in self.forward(self.given, self.size).items()}
        if self.graph is None:
            self.graph = self._capture()
        self.graph.replay()
        torch.cuda.current_stream().synchronize()
        return {name: out.numpy().copy() for name, out in self.results.items()}

    def _pass(self) -> dict[str, Tensor]:
        self.device.copy_(self.host, non_blocking=True)
        return self.forward(self.given, self.size)

    def _capture(self) -> torch.cuda.CUDAGraph:
        """One graph of the copies and the pass. The pass runs twice before: the first compiles the kernels."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                outs = self._pass()
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        self.results = {
            name: torch.empty_like(out, device="cpu", pin_memory=True) for name, out in outs.items()
        }
        graph = torch.cuda.CUDAGraph()
        # Other threads of a server may use the device meanwhile: only this thread's calls are held to the rules.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for name, out in self._pass().items():
                self.results[name].copy_(out, non_blocking=True)
        return graph


class Buckets:
    """A bucket for every kind of pass and size that came; beyond `KEPT` the longest unused goes. One pass a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kept: dict[tuple[str, Size], Bucket] = {}
        self.lock = Lock()

    def run(self, name: str, forward: Forward, given: Pack) -> Outputs:
        """`forward`, known as `name`, on a pass; safe to call from several threads."""
        size = given.size
        with self.lock, torch.inference_mode():
            bucket = self.kept.pop((name, size), None) or Bucket(forward, given, size, self.device)
            self.kept[name, size] = bucket  # the latest used is the last
            if len(self.kept) > KEPT:
                del self.kept[next(iter(self.kept))]
            return bucket(given)


def shapes(given: Pack, size: Size) -> dict[str, tuple[int, ...]]:
    """Shape of every buffer of a bucket."""
    rooms = {
        "ids": size.tokens, "segments": size.tokens, "places": size.tokens, "cu": size.texts + 1,
        "whole": 2, "text": size.batch, "model": size.batch, "features": size.batch, "lexical": size.batch,
        "rows": size.tower_tokens, "tower_cu": size.towers + 1, "offsets": len(given.arrays["offsets"]),
        "sequence": size.answers, "expert": size.answers, "source": size.answers,
    }  # fmt: skip
    return {name: (rooms[name], *array.shape[1:]) for name, array in given.arrays.items()}


def _view(buffer: Tensor, begin: int, shape: tuple[int, ...], name: str) -> Tensor:
    part = buffer[begin : begin + int(np.prod(shape))]
    return (part.view(torch.float32) if name in ("features", "lexical") else part).view(shape)
