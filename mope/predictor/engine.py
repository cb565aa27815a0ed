"""The fused forward pass: shared layers once for all tokens, then all experts at once, five launches a layer.

Start reading at `Engine.answers`. Everything here runs on the device without a look at any value, so that the whole
pass can be captured as one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from mope.kernels.operands import HeadRows, HeadWeights, Moments, Route, Tables
from mope.predictor.packing import Size
from mope.predictor.stacks import StackWeights, Weights

Buffers = Mapping[str, Tensor]


class Ops(Protocol):
    """The operations of a pass: `mope.kernels.fused`, or `mope.kernels.reference`."""

    linear: Callable[..., Tensor]
    residual_linear: Callable[..., tuple[Tensor, Moments]]
    attention: Callable[[Tensor, Tensor, int, int], Tensor]
    embed: Callable[..., Tensor]
    head: Callable[[Tensor, Moments, Tensor, HeadRows, HeadWeights], Tensor]
    route: Callable[[Tensor, Tensor | None, Tensor, Tensor, int, int], Route]


@dataclass(frozen=True)
class Cut:
    """Sequences: cu [S + 1], none longer than `longest`, and the experts' parts of the tokens, offsets [E + 1]."""

    cu: Tensor
    offsets: Tensor
    longest: int


def encode(
    ops: Ops, stack: StackWeights, x: Tensor, norm: Moments | None, cut: Cut, heads: int, rows: Tensor | None
) -> tuple[Tensor, Moments]:
    """x [T, H] through the layers; `rows` [T'] picks the rows of x. The result lacks the stack's last norm."""
    capacity = len(x) if rows is None else len(rows)
    for layer in stack.layers:
        qkv = ops.linear(x, layer.qkv, cut.offsets, norm=norm, rows=rows, capacity=capacity)
        seen = ops.attention(qkv, cut.cu, heads, cut.longest)
        y, inner = ops.residual_linear(
            seen, layer.out, cut.offsets, x, norm=norm, affine=layer.before, rows=rows
        )
        wide = ops.linear(y, layer.up, cut.offsets, norm=inner, gelu=True)
        x, norm = ops.residual_linear(
            wide, layer.down, cut.offsets, y, norm=inner, affine=layer.between, rows=None
        )
        rows = None
    assert norm is not None
    return x, norm


@dataclass(frozen=True)
class Engine:
    """A bundle's networks ready to run; buffers are those of `packing.Pack`, padded to a `Size`."""

    ops: Ops
    weights: Weights

    def answers(self, given: Buffers, size: Size) -> dict[str, Tensor]:
        """`out` FP32 [R, Q]: each pair of row and expert that was packed."""
        below = self._below(given, size)
        return {"out": self._tower(given, size, *below)}

    def routed(self, given: Buffers, size: Size) -> dict[str, Tensor]:
        """Packed with the router as every row's expert: `chances` [B, 3] and `out` [B, Q] of the likeliest expert."""
        return self._routed(given, size, None)

    def averaged(self, given: Buffers, size: Size) -> dict[str, Tensor]:
        """As `routed`, by the mean of the router's chances and the packed `lexical` ones."""
        return self._routed(given, size, given["lexical"])

    def _routed(self, given: Buffers, size: Size, lexical: Tensor | None) -> dict[str, Tensor]:
        below = self._below(given, size)
        scores = self._tower(given, size, *below)
        experts = len(self.weights.names)
        sent = self.ops.route(scores, lexical, given["text"], given["cu"], experts, size.tower_tokens)
        again = dict(given) | {
            "rows": sent.rows, "tower_cu": sent.cu, "offsets": sent.offsets, "sequence": sent.sequence,
            "expert": sent.expert,
        }  # fmt: skip
        return {"chances": sent.chances, "out": self._tower(again, size, *below)}

    def _below(self, given: Buffers, size: Size) -> tuple[Tensor | None, Moments | None]:
        """What all towers read: the trunk's output, or nothing where every expert reads the text itself."""
        trunk = self.weights.trunk
        if trunk is None:
            return None, None
        cut = Cut(given["cu"], given["whole"], size.longest)
        x = self._embed(trunk.tables, given, cut.offsets, None)
        return encode(self.ops, trunk, x, None, cut, self.weights.heads, None)

    def _tower(self, given: Buffers, size: Size, x: Tensor | None, norm: Moments | None) -> Tensor:
        tower, rows = self.weights.tower, given["rows"]
        cut = Cut(given["tower_cu"], given["offsets"], size.longest)
        gathered: Tensor | None = rows
        if x is None:
            x, gathered = self._embed(tower.tables, given, cut.offsets, rows), None
        x, norm = encode(self.ops, tower, x, norm, cut, self.weights.heads, gathered)
        asked = HeadRows(
            given["sequence"], given["expert"], given["source"], given["features"], given["model"]
        )
        return self.ops.head(x, norm, cut.cu, asked, self.weights.head)

    def _embed(self, tables: Tables | None, given: Buffers, offsets: Tensor, rows: Tensor | None) -> Tensor:
        assert tables is not None
        capacity = 0 if rows is None else len(rows)
        return self.ops.embed(
            given["ids"], given["segments"], given["places"], tables, offsets, rows=rows, capacity=capacity
        )
