"""Int8 graphs from fp32 graphs: five ways to store the weights and to meet the activations.

    dynamic   weights int8 by column; activations uint8, one scale for all that a run holds
    rows      the same, one scale for each token: an answer cannot depend on what else a run holds
    static    the same, scales fixed beforehand from calibration prompts
    weights   weights int8, unpacked to fp32 when the graph is opened; activations fp32
    blocks    weights int8 in blocks of 32, ONNX Runtime's `MatMulNBits`; activations int8 by block of a token

Embedding tables are int8 with a scale for each row; heads stay fp32 (they are small, and their inputs are not of one
scale). docs/export.md holds what each costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node, make_opsetid

from mope.export.graphs import after, save

SCHEMES = ("dynamic", "rows", "static", "weights", "blocks")
BLOCK = 32
TABLE_ROWS = 1000  # smaller tables stay fp32
LEVELS, WHOLE = 255, 127  # steps of uint8; the largest int8
TOP = 63  # of a weight, not 127: pairs of products must fit the 16 bits in which AVX2 adds them without VNNI
CONTRIB = "com.microsoft"

Float = NDArray[np.float32]
Ranges = Mapping[str, tuple[float, float]]


@dataclass
class Build:
    """Nodes and weights of one rewritten product, and what products of the same input share."""

    ranges: Ranges = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    def add(
        self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any
    ) -> None:
        """Append a node."""
        self.nodes.append(make_node(op, inputs, outputs, None, None, domain, **attributes))

    def first(self, name: str) -> bool:
        """Whether `name` is met for the first time."""
        new = name not in self.met
        self.met.add(name)
        return new


def quantize(source: Path, target: Path, scheme: str, ranges: Ranges | None = None) -> None:
    """Write the fp32 graph `source` as an int8 graph; `static` needs the `ranges` of `observed`."""
    model = onnx.load(source)
    build, head = Build(ranges or {}), after(model.graph, ("features", "model", "text"))
    new: dict[str, list[NodeProto]] = {}
    dead = set()
    for node, weight in products(model.graph):
        if node.output[0] not in head:
            build.nodes = []
            MAKERS[scheme](build, node.input[0], weight, node.output[0])
            new[node.output[0]] = build.nodes
            dead.add(node.input[1])
    for node, table in _tables(model.graph):
        build.nodes = []
        _gather(build, node, table)
        new[node.output[0]] = build.nodes
        dead.add(node.input[0])
    _replace(model, new, dead, build.arrays)
    save(model, target)


def products(graph: GraphProto) -> Iterator[tuple[NodeProto, Float]]:
    """Every product with constant weights, and they as [K, N]."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in held and len(held[node.input[1]].dims) == 2:
            yield node, numpy_helper.to_array(held[node.input[1]])


def _tables(graph: GraphProto) -> Iterator[tuple[NodeProto, Float]]:
    held = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in held:
            tensor = held[node.input[0]]
            if len(tensor.dims) == 2 and tensor.dims[0] >= TABLE_ROWS:
                yield node, numpy_helper.to_array(tensor)


def _replace(
    model: ModelProto,
    new: Mapping[str, list[NodeProto]],
    dead: set[str],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    graph = model.graph
    nodes = [made for node in graph.node for made in new.get(node.output[0], [node])]
    kept = [tensor for tensor in graph.initializer if tensor.name not in dead]
    fresh = GraphProto()
    fresh.CopyFrom(graph)
    del fresh.node[:], fresh.initializer[:], fresh.value_info[:]
    fresh.node.extend(nodes)
    fresh.initializer.extend(kept + [numpy_helper.from_array(a, name) for name, a in arrays.items()])
    graph.CopyFrom(fresh)
    if any(node.domain == CONTRIB for node in nodes):
        model.opset_import.append(make_opsetid(CONTRIB, 1))


def _columns(build: Build, weight: Float, out: str, top: int = TOP) -> tuple[str, str]:
    """Weights int8 [K, N] and their scale for each column [N]: symmetric, so a product needs no correction."""
    scale = _scale(np.abs(weight).max(0), top)
    build.arrays |= {f"{out}.weight": np.round(weight / scale).astype(np.int8), f"{out}.scale": scale}
    return f"{out}.weight", f"{out}.scale"


def _scale(largest: Float, top: int = WHOLE) -> Float:
    scale: Float = np.where(largest == 0, 1, largest / top).astype(np.float32)
    return scale


def _gather(build: Build, node: NodeProto, table: Float) -> None:
    name, ids, out = node.input[0], node.input[1], node.output[0]
    scale = _scale(np.abs(table).max(1, keepdims=True))
    build.arrays |= {f"{name}.int8": np.round(table / scale).astype(np.int8), f"{name}.scale": scale}
    build.add("Gather", [f"{name}.int8", ids], [f"{out}.int8"])
    build.add("Gather", [f"{name}.scale", ids], [f"{out}.scale"])
    build.add("Cast", [f"{out}.int8"], [f"{out}.float"], to=TensorProto.FLOAT)
    build.add("Mul", [f"{out}.float", f"{out}.scale"], [out])


def _dynamic(build: Build, x: str, weight: Float, out: str) -> None:
    q, scale = _columns(build, weight, out)
    if build.first(x):
        build.add("DynamicQuantizeLinear", [x], [f"{x}.q", f"{x}.scale", f"{x}.zero"])
    build.add("MatMulInteger", [f"{x}.q", q, f"{x}.zero"], [f"{out}.int"])
    build.add("Cast", [f"{out}.int"], [f"{out}.float"], to=TensorProto.FLOAT)
    build.add("Mul", [f"{x}.scale", scale], [f"{out}.scales"])
    build.add("Mul", [f"{out}.float", f"{out}.scales"], [out])


def _rows(build: Build, x: str, weight: Float, out: str) -> None:
    """x = low + step * q for each token, so x W = step * (q W) + low * (sum of W over its rows)."""
    q, scale = _columns(build, weight, out)
    sums = build.arrays[q].astype(np.float64).sum(0) * build.arrays[scale]
    build.arrays[f"{out}.sums"] = sums.astype(np.float32)
    if build.first(x):
        _row_levels(build, x)
    build.add("MatMulInteger", [f"{x}.q", q], [f"{out}.int"])
    build.add("Cast", [f"{out}.int"], [f"{out}.float"], to=TensorProto.FLOAT)
    build.add("Mul", [f"{out}.float", scale], [f"{out}.columns"])
    build.add("Mul", [f"{out}.columns", f"{x}.step"], [f"{out}.rows"])
    build.add("Mul", [f"{x}.low", f"{out}.sums"], [f"{out}.shift"])
    build.add("Add", [f"{out}.rows", f"{out}.shift"], [out])


def _row_levels(build: Build, x: str) -> None:
    build.arrays |= {
        "rows.last": np.array([-1]), "rows.level": np.array(1 / LEVELS, np.float32),
        "rows.least": np.array(1e-20, np.float32), "rows.one": np.array(1, np.float32),
        "rows.zero": np.array(0, np.uint8),
    }  # fmt: skip
    build.add("ReduceMax", [x, "rows.last"], [f"{x}.high"], keepdims=1)
    build.add("ReduceMin", [x, "rows.last"], [f"{x}.low"], keepdims=1)
    build.add("Sub", [f"{x}.high", f"{x}.low"], [f"{x}.range"])
    build.add("Mul", [f"{x}.range", "rows.level"], [f"{x}.level"])
    build.add("Max", [f"{x}.level", "rows.least"], [f"{x}.step"])
    build.add("Sub", [x, f"{x}.low"], [f"{x}.above"])
    build.add("Div", [f"{x}.above", f"{x}.step"], [f"{x}.levels"])
    build.add("QuantizeLinear", [f"{x}.levels", "rows.one", "rows.zero"], [f"{x}.q"])


def _static(build: Build, x: str, weight: Float, out: str) -> None:
    q, scale = _columns(build, weight, out)
    if build.first(x):
        low, high = min(build.ranges[x][0], 0.0), max(build.ranges[x][1], 0.0)
        step = max((high - low) / LEVELS, 1e-20)
        build.arrays[f"{x}.step"] = np.array(step, np.float32)
        build.arrays[f"{x}.zero"] = np.array(round(-low / step), np.uint8)
        build.add("QuantizeLinear", [x, f"{x}.step", f"{x}.zero"], [f"{x}.q"])
    build.arrays[f"{out}.scales"] = np.multiply(build.arrays.pop(scale), build.arrays[f"{x}.step"])
    build.add("MatMulInteger", [f"{x}.q", q, f"{x}.zero"], [f"{out}.int"])
    build.add("Cast", [f"{out}.int"], [f"{out}.float"], to=TensorProto.FLOAT)
    build.add("Mul", [f"{out}.float", f"{out}.scales"], [out])


def _weights(build: Build, x: str, weight: Float, out: str) -> None:
    q, scale = _columns(build, weight, out, WHOLE)
    build.add("DequantizeLinear", [q, scale], [f"{out}.whole"], axis=1)
    build.add("MatMul", [x, f"{out}.whole"], [out])


def _blocks(build: Build, x: str, weight: Float, out: str) -> None:
    """As `MatMulNBits` wants it: [N, blocks, BLOCK] around 128, a scale for each block."""
    inner, width = weight.shape
    count = -(-inner // BLOCK)
    padded = np.zeros((count * BLOCK, width), np.float32)
    padded[:inner] = weight
    blocks = padded.T.reshape(width, count, BLOCK)
    scale = _scale(np.abs(blocks).max(2))
    levels = np.round(blocks / scale[:, :, None]) + 128
    build.arrays |= {f"{out}.weight": levels.astype(np.uint8), f"{out}.scale": scale.reshape(-1)}
    sizes = {"K": inner, "N": width, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    build.add("MatMulNBits", [x, f"{out}.weight", f"{out}.scale"], [out], CONTRIB, **sizes)


MAKERS: dict[str, Callable[[Build, str, Float, str], None]] = {
    "dynamic": _dynamic, "rows": _rows, "static": _static, "weights": _weights, "blocks": _blocks,
}  # fmt: skip
