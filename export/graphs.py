"""Graphs as files: without traces of the machine that wrote them, and one for several networks of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from mope.files import whole

Weights = Mapping[str, NDArray[np.float32]]
MOST_BYTES = 2_000_000_000  # a protobuf message ends at 2 GiB: above, weights go into a file of their own


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
    save(model, path)


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
    save(model, target)
    return True


def save(model: onnx.ModelProto, path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Write a graph whole or not at all; above `most_bytes` its weights go into `path` + ".data"."""
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > most_bytes:
        _outside(model, path.with_name(f"{path.name}.data"))
    with whole(path) as partial:
        partial.write_bytes(model.SerializeToString())


def _outside(model: onnx.ModelProto, path: Path) -> None:
    """Move the weights into one file, each at a multiple of 4096 bytes so that it can be mapped."""
    with whole(path) as partial, partial.open("wb") as file:
        for tensor in model.graph.initializer:
            file.write(bytes(-file.tell() % 4096))
            place = {"location": path.name, "offset": file.tell(), "length": len(tensor.raw_data)}
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))


def after(graph: onnx.GraphProto, inputs: Iterable[str]) -> set[str]:
    """Names of all that is computed from any of `inputs`."""
    found = set(inputs)
    for node in graph.node:
        if found.intersection(node.input):
            found.update(node.output)
    return found


def in_order(graph: onnx.GraphProto) -> None:
    """Put every node behind those that it reads; a stable order, of nodes without subgraphs."""
    by_output = {name: node for node in graph.node for name in node.output}
    fresh, done = onnx.GraphProto(), set[str]()
    stack = list(reversed(graph.node))
    while stack:
        node = stack[-1]
        missing = [by_output[name] for name in node.input if name in by_output and name not in done]
        if missing:
            stack += missing
        elif stack.pop().output[0] not in done:
            done.update(node.output)
            fresh.node.append(node)
    del graph.node[:]
    graph.node.extend(fresh.node)
