"""One graph that holds trunk, router, experts, mixture and calibration: a gateway needs one session and a tokenizer.

Inputs   ids, segments, mask  int64 [rows, tokens]; features float32 [rows, F], NaN where unknown; model int64 [rows],
         0 for unknown; lexical float32 [rows, 3] where the bundle averages both routers or has only that one
Outputs  tokens, low, high float32 [rows]; quantiles float32 [rows, K]; probabilities float32 [rows, 3]

Soft routing runs every expert and mixes in the graph. Hard routing runs each expert under an `If`, on the rows that
were sent to it: gathering stacked weights for each row was slower at every size (docs/export.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_value_info,
)

from mope.predictor.config import BundleConfig
from mope.predictor.layout import ENCODER_ROUTER, TRUNK
from mope.types import BUCKETS

INPUTS = ("ids", "segments", "mask", "features", "model", "lexical")
OUTPUTS = ("tokens", "low", "high", "quantiles", "probabilities")
Pieces = Mapping[str, ModelProto]


class Canvas:
    """Nodes and weights of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node with one output; returns its name."""
        self.nodes.append(make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        """Append a weight; returns its name."""
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def place(self, piece: ModelProto, prefix: str, feed: Mapping[str, str]) -> list[str]:
        """Append the nodes of `piece`, reading `feed` for its inputs; returns the names of its outputs."""
        graph = piece.graph
        names = {value.name: feed[value.name] for value in graph.input} | {"": ""}

        def renamed(name: str) -> str:
            return names.setdefault(name, f"{prefix}/{name}")

        for tensor in graph.initializer:
            copy = TensorProto()
            copy.CopyFrom(tensor)
            copy.name = renamed(tensor.name)
            self.weights.append(copy)
        for node in graph.node:
            made = NodeProto()
            made.CopyFrom(node)
            made.name = f"{prefix}/{node.name}" if node.name else ""
            made.input[:], made.output[:] = map(renamed, node.input), map(renamed, node.output)
            self.nodes.append(made)
        return [renamed(value.name) for value in graph.output]


def routed(pieces: Pieces, tail: ModelProto, config: BundleConfig) -> ModelProto:
    """The one graph from the graphs of the networks and of `mope.export.tail.Tail`."""
    canvas = Canvas()
    own = {"segments": "segments", "mask": "mask", "features": "features", "model": "model"}
    own["x"] = canvas.place(pieces[TRUNK], TRUNK, own | {"x": "ids"})[0] if config.shared_layers else "ids"
    own["text"] = _counted(canvas, "ids", "text")
    chances = _chances(canvas, pieces, own, config)
    if config.routing == "soft":
        found = [canvas.place(pieces[name], name, own)[0] for name in BUCKETS]
        logs = canvas.add("Concat", _lifted(canvas, found), "logs", axis=1)
    else:
        logs = _sent(canvas, pieces, own, chances, config)
    ends = canvas.place(tail, "tail", {"logs": logs, "probabilities": chances})
    for name, output in zip(OUTPUTS, [*ends, chances], strict=True):
        canvas.add("Identity", [output], name)
    return _model(canvas, config)


def _counted(canvas: Canvas, of: str, name: str) -> str:
    """0, 1, ... for each row of `of`: every row reads its own text."""
    canvas.add("Shape", [of], f"{name}/shape", start=0, end=1)
    canvas.add("Squeeze", [f"{name}/shape"], f"{name}/count")
    zero, one = (canvas.constant(f"{name}/{n}", np.array(n)) for n in (0, 1))
    return canvas.add("Range", [zero, f"{name}/count", one], name)


def _chances(canvas: Canvas, pieces: Pieces, own: Mapping[str, str], config: BundleConfig) -> str:
    if config.router == "lexical":
        return "lexical"
    scores = canvas.place(pieces[ENCODER_ROUTER], ENCODER_ROUTER, own)[0]
    chances = canvas.add("Softmax", [scores], "chances/encoder", axis=-1)
    if config.router == "encoder":
        return chances
    total = canvas.add("Add", [chances, "lexical"], "chances/total")
    return canvas.add("Mul", [total, canvas.constant("chances/half", np.array(0.5, np.float32))], "chances")


def _lifted(canvas: Canvas, names: list[str]) -> list[str]:
    axis = canvas.constant("axis/1", np.array([1]))
    return [canvas.add("Unsqueeze", [name, axis], f"{name}/lifted") for name in names]


def _sent(canvas: Canvas, pieces: Pieces, own: Mapping[str, str], chances: str, config: BundleConfig) -> str:
    """Quantiles [rows, K]: each expert reads the rows for which it is the likeliest."""
    choice = canvas.add("ArgMax", [chances], "choice", axis=1, keepdims=0)
    flat, none = canvas.constant("flat", np.array([-1])), canvas.constant("none", np.array(0))
    places, answers = [], []
    for number, name in enumerate(BUCKETS):
        chosen = canvas.add(
            "Equal", [choice, canvas.constant(f"{name}/number", np.array(number))], f"{name}/chosen"
        )
        rows = canvas.add("Reshape", [canvas.add("NonZero", [chosen], f"{name}/where"), flat], f"{name}/rows")
        some = canvas.add("Greater", [canvas.add("Size", [rows], f"{name}/size"), none], f"{name}/some")
        yes, no = _expert(canvas, pieces[name], name, own, rows), _nobody(name, len(config.quantiles))
        answers.append(canvas.add("If", [some], f"{name}/logs", then_branch=yes, else_branch=no))
        places.append(rows)
    order = canvas.add("Concat", places, "order", axis=0)
    last = canvas.constant("axis/last", np.array([-1]))
    where = canvas.add("Unsqueeze", [order, last], "order/column")
    updates = canvas.add("Concat", answers, "answers", axis=0)
    return canvas.add("ScatterND", [updates, where, updates], "logs")


def _expert(canvas: Canvas, piece: ModelProto, name: str, own: Mapping[str, str], rows: str) -> GraphProto:
    """The branch with rows: an expert on them. Its weights lie in the outer graph, which a branch may read."""
    branch, prefix = Canvas(), f"{name}/then"
    feed = {
        key: branch.add("Gather", [source, rows], f"{prefix}/{key}", axis=0)
        for key, source in own.items() if key != "text"
    }  # fmt: skip
    feed["text"] = _counted(branch, rows, f"{prefix}/text")
    out = branch.place(piece, prefix, feed)[0]
    canvas.weights += branch.weights
    return make_graph(branch.nodes, prefix, [], [make_tensor_value_info(out, TensorProto.FLOAT, None)])


def _nobody(name: str, levels: int) -> GraphProto:
    empty = numpy_helper.from_array(np.zeros((0, levels), np.float32), f"{name}/empty")
    node = make_node("Constant", [], [f"{name}/else"], value=empty)
    return make_graph(
        [node], f"{name}/else", [], [make_tensor_value_info(f"{name}/else", TensorProto.FLOAT, None)]
    )


def _model(canvas: Canvas, config: BundleConfig) -> ModelProto:
    inputs = INPUTS if config.router != "encoder" else INPUTS[:-1]
    graph = make_graph(
        canvas.nodes, "mope", [_input(name, config) for name in inputs], _outputs(config), canvas.weights
    )
    domains = {node.domain for node in canvas.nodes} - {""}
    opsets = [make_opsetid("", 20), *(make_opsetid(domain, 1) for domain in sorted(domains))]
    model = make_model(graph, opset_imports=opsets, ir_version=10, producer_name="mope")
    for key, value in described(config).items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    return model


def _input(name: str, config: BundleConfig) -> ValueInfoProto:
    if name == "features":
        return make_tensor_value_info(name, TensorProto.FLOAT, ["rows", len(config.features)])
    if name == "lexical":
        return make_tensor_value_info(name, TensorProto.FLOAT, ["rows", len(BUCKETS)])
    return make_tensor_value_info(
        name, TensorProto.INT64, ["rows"] if name == "model" else ["rows", "tokens"]
    )


def _outputs(config: BundleConfig) -> list[ValueInfoProto]:
    wide = {"quantiles": len(config.quantiles), "probabilities": len(BUCKETS)}
    shapes: dict[str, list[str | int]] = {
        name: ["rows", wide[name]] if name in wide else ["rows"] for name in OUTPUTS
    }
    return [make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]


def described(config: BundleConfig) -> dict[str, object]:
    """What a gateway has to know, kept in the file's metadata: text rule, features, models, levels, bounds."""
    return {
        "mope_version": config.mope_version, "buckets": list(BUCKETS), "levels": list(config.quantiles),
        "bounds": [config.bounds.short, config.bounds.medium], "text": asdict(config.text),
        "features": list(config.features), "models": list(config.models), "tokenizer": "tokenizer.json",
        "router": config.router, "routing": config.routing,
    }  # fmt: skip
