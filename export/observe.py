"""What flows into the products of a graph on real prompts: ranges for static int8 scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]

from mope.export.quantize import products


def observed(source: Path, feeds: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Name of each product's input in the graph `source` -> its (low, high), each the mean over `feeds`.

    Cutting off outermost values, as is usual, made forecasts worse: they carry what LayerNorm's outputs say.
    """
    model = onnx.load(source)
    names = list(dict.fromkeys(node.input[0] for node, _ in products(model.graph)))
    given = {value.name for value in model.graph.input}
    inner = [name for name in names if name not in given]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [value.name for value in session.get_inputs()]
    ends = []
    for feed in feeds:
        values = dict(zip(inner, session.run(inner, {n: feed[n] for n in wanted}), strict=True))
        ends.append([_ends(values[name] if name in values else feed[name]) for name in names])
    means = np.mean(ends, axis=0)
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, means, strict=True)}


def _ends(values: Any) -> tuple[float, float]:
    return float(np.min(values)), float(np.max(values))
