"""Graphs as files: without traces of the machine that wrote them, and one for several networks of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Weights = Mapping[str, NDArray[np.float32]]


def strip(path: Path) -> None:
    """Take out what the exporter notes about each node: stack traces, with the paths of this machine."""
    model = onnx.load(path)
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
    ):
        part.ClearField("metadata_props")
    path.write_bytes(model.SerializeToString())


def refill(source: Path, target: Path, before: Weights, after: Weights) -> bool:
    """Write the graph `source`, traced with weights `before`, to `target` with `after` in their place.

    Tracing takes seconds, this does not.
    The exporter keeps a weight under its own name, or folds its transpose under a name of the graph's. Writes
    nothing and says False where the weights differ in shape, or where one is not found or could stand in two places.
    """
    if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in after.items()}:
        return False
    model = onnx.load(source)
    filled = set()
    for tensor in model.graph.initializer:
        held = numpy_helper.to_array(tensor)
        if tensor.name in before:
            new = after[tensor.name]
            found = [tensor.name] if held.shape == new.shape else []
        else:
            found = [k for k, v in before.items() if v.ndim == 2 and np.array_equal(v.T, held)]
            new = after[found[0]].T if found else held
        if len(found) > 1:
            return False
        if found:
            tensor.raw_data = new.astype("<f4").tobytes()
            filled.update(found)
    if filled != set(before):
        return False
    target.write_bytes(model.SerializeToString())
    return True
