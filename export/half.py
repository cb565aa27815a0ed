"""FP16 graphs from fp32 graphs: for GPUs. Inputs and outputs stay fp32, and so does the head."""

from __future__ import annotations

from pathlib import Path

import onnx

from mope.export.graphs import after, in_order, save


def halve(source: Path, target: Path) -> None:
    """Write the fp32 graph `source` with fp16 weights and arithmetic below the head.

    Features count characters, which may be more than the 65,504 that fp16 ends at.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16  # type: ignore[import-untyped]

    model = onnx.load(source)
    head = after(model.graph, ("features", "model", "text"))
    kept = [node.name for node in model.graph.node if head.intersection(node.output)]
    halved = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    in_order(halved.graph)  # casts come last, and a branch of `routed` wants what it reads first
    save(halved, target)
