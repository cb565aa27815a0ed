"""How long one step of an engine takes: n sequences each add a token, and perhaps a chunk of a prompt is read.

Two laws with the same face: `Layered` builds a step from parts of a layer and carries over to other models and GPUs;
`Direct` is a plain line through an engine's own log. Both are affine in the context at a fixed batch.
Times in seconds; arguments may be floats or arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import NamedTuple, Protocol

import numpy as np

from mope.mapper.gpus import Gpu
from mope.mapper.numbers import Floats, Number, floor, least, where
from mope.mapper.parts import Decode, Linear, Link, Matmul, Overhead, Prefill
from mope.mapper.shapes import ModelShape

MOST_KNOWN = 100_000


class Line(NamedTuple):
    """A step of a batch that only decodes: `seconds + per_token * context tokens of the whole batch`."""

    seconds: Number
    per_token: Number

    def at(self, context: Number) -> Number:
        """Seconds of a step with so many tokens of context in all."""
        return self.seconds + self.per_token * context


class StepLaw(Protocol):
    """What a hardware profile knows of time."""

    def decode(self, batch: Number, mean_context: Number) -> Line:
        """The line of a step with `batch` decoding sequences, near a mean context in tokens."""

    def prefill(self, tokens: Number, chunk: Number, batch: Number, mean_context: Number) -> Number:
        """Seconds until `tokens` of one prompt are read, `chunk` at a time, beside `batch` decoding sequences.

        With whole prompts (`chunk` at least `tokens`) one step.
        """


def _chunks(tokens: Number, chunk: Number) -> tuple[Number, Number]:
    """(whole chunks, tokens left for the last one), which is never empty: a prompt has at least one token."""
    whole = floor((tokens - 1.0) / chunk)
    return whole, tokens - whole * chunk


@dataclass(frozen=True)
class Layered:
    """A step built from fitted parts of a layer, for a model's shape on `tp` GPUs of one kind.

    t = step + sequence * rows + layers * (linear + attention + 2 all-reduces) + output head
    """

    shape: ModelShape
    gpu: Gpu
    tp: int = 1
    linear: Linear = field(default_factory=Linear)
    attention: Decode = field(default_factory=Decode)
    reading: Prefill = field(default_factory=Prefill)
    link: Link = field(default_factory=Link)
    overhead: Overhead = field(default_factory=Overhead)

    @cached_property
    def _kv_heads(self) -> int:
        return self.shape.kv_heads_per_gpu(self.tp)

    @cached_property
    def products(self) -> tuple[Matmul, ...]:
        """The matrix products of a mean layer, cut over the GPUs."""
        shape, tp = self.shape, self.tp
        heads, kv_heads = shape.heads_per_gpu(tp), shape.kv_heads_per_gpu(tp)
        width = shape.ffn / tp
        gates = 2 if shape.gated else 1
        size = shape.bytes_per_weight
        share = shape.active_experts / shape.experts
        found = [
            Matmul(shape.hidden, (heads + 2 * kv_heads) * shape.head_dim, weight_bytes=size),
            Matmul(heads * shape.head_dim, shape.hidden, weight_bytes=size),
            Matmul(shape.hidden, gates * width, shape.experts, share, size),
            Matmul(width, shape.hidden, shape.experts, share, size),
        ]
        if shape.shared_ffn:
            found.append(Matmul(shape.hidden, gates * shape.shared_ffn / tp, weight_bytes=size))
            found.append(Matmul(shape.shared_ffn / tp, shape.hidden, weight_bytes=size))
        return tuple(found)

    @cached_property
    def moved(self) -> float:
        """Bytes of activations that one token sends through norms, rotations and activations of a layer."""
        shape, tp = self.shape, self.tp
        heads = shape.heads_per_gpu(tp) + shape.kv_heads_per_gpu(tp)
        ffn = shape.active_experts * shape.ffn + shape.shared_ffn
        return 2.0 * (8 * shape.hidden + 2 * heads * shape.head_dim + 3 * ffn / tp)

    @cached_property
    def head(self) -> Matmul:
        """The product with the vocabulary, once per sampled token."""
        return Matmul(self.shape.hidden, self.shape.vocab / self.tp, weight_bytes=self.shape.bytes_per_weight)

    @cached_property
    def token_bytes(self) -> float:
        """Keys and values of one token in one layer on one GPU."""
        shape = self.shape
        return 2.0 * shape.kv_heads_per_gpu(self.tp) * shape.head_dim * shape.bytes_per_kv

    def rows(self, tokens: Number, sampled: Number) -> Number:
        """Seconds of a step without attention: `tokens` through all layers, `sampled` of them through the head."""
        if isinstance(tokens, np.ndarray) or isinstance(sampled, np.ndarray):
            return self._looked_up(tokens, sampled)
        found = self._known.get((tokens, sampled))
        if found is None:
            self._make_room()
            found = self._known[tokens, sampled] = float(self._rows(tokens, sampled))
        return found

    def prepare(self, batch: int, most: int) -> None:
        """Work out the steps of 1 to `most` tokens beside `batch` sequences, all at once: a table for `rows`."""
        tokens = np.arange(1.0, most + 1.0) + batch
        rows = np.asarray(self._rows(tokens, batch + 1.0))
        self._make_room()
        self._known.update(zip(zip(tokens.tolist(), repeat(batch + 1.0)), rows.tolist(), strict=False))
        self._tables[batch + 1.0] = rows

    def _make_room(self) -> None:
        """A server that runs for months must not keep every size it ever met."""
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()

    def _looked_up(self, tokens: Number, sampled: Number) -> Number:
        """`_rows` of arrays, from the table of that many sequences where all are whole numbers in it."""
        table = None if isinstance(sampled, np.ndarray) else self._tables.get(sampled)
        if table is not None:
            places = tokens - sampled
            index = np.asarray(places).astype(np.intp)
            if (
                np.array_equal(index, places)
                and index.min(initial=0) >= 0
                and index.max(initial=0) < len(table)
            ):
                return np.asarray(table[index])
        return self._rows(tokens, sampled)

    @cached_property
    def _tables(self) -> dict[float, Floats]:
        """Steps worked out by `prepare`, by sequences: entry i is a step of i + 1 tokens beside the others."""
        return {}

    @cached_property
    def _known(self) -> dict[tuple[float, float], float]:
        """Steps already worked out, by (tokens, sampled): the same few sizes come again and again."""
        return {}

    @cached_property
    def _attended(self) -> dict[tuple[float, bool], tuple[Number, Number]]:
        """Decode attention already worked out, by batch and side of the turn."""
        return {}

    def _rows(self, tokens: Number, sampled: Number) -> Number:
        shape = self.shape
        layer = self.linear.time(self.products, self.moved, self.gpu, tokens)
        sent = 2.0 * self.link.time(tokens * (2.0 * shape.hidden), self.gpu, self.tp)
        head = self.linear.product(self.head, self.gpu, sampled)
        own = self.overhead.step + self.overhead.sequence * sampled
        return shape.layers * (layer + sent) + head + own

    def decode(self, batch: Number, mean_context: Number) -> Line:
        """See `StepLaw.decode`."""
        fixed, per_token = self._attention(batch, mean_context)
        return Line(self.rows(batch, batch) + fixed, per_token)

    def _attention(self, batch: Number, mean_context: Number) -> tuple[Number, Number]:
        """Decode attention of all layers: seconds without context, seconds per context token."""
        if isinstance(batch, np.ndarray) or isinstance(mean_context, np.ndarray) or self.shape.window:
            return self._attend(batch, mean_context)
        key = batch, mean_context <= self.attention.turn
        found = self._attended.get(key)
        if found is None:
            found = self._attended[key] = self._attend(batch, mean_context)
        return found

    def _attend(self, batch: Number, mean_context: Number) -> tuple[Number, Number]:
        """A layer with a sliding window reads at most the window."""
        shape = self.shape
        fixed, per_token = self.attention.line(
            self.token_bytes, self._kv_heads, self.gpu, batch, mean_context
        )
        seen: Number = float(shape.layers)
        if shape.window is not None:
            inside = least(1.0, shape.window / where(mean_context > 1.0, mean_context, 1.0))
            seen = shape.full_layers + (shape.layers - shape.full_layers) * inside
        return shape.layers * fixed, per_token * seen

    def prefill(self, tokens: Number, chunk: Number, batch: Number, mean_context: Number) -> Number:
        """See `StepLaw.prefill`; the sum over chunks in closed form."""
        whole, last = _chunks(tokens, chunk)
        sampled = batch + 1.0
        total = self.rows(last + batch, sampled) + self.shape.layers * self._chunk(last, whole * chunk)
        if isinstance(whole, np.ndarray) or whole > 0:
            # The prefixes of the whole chunks are 0, chunk, 2 chunk, ...
            mean = self.shape.layers * self._chunk(chunk, chunk * (whole - 1.0) / 2.0)
            total = total + whole * (self.rows(chunk + batch, sampled) + mean)
        if isinstance(batch, np.ndarray) or batch > 0:
            fixed, per_token = self._attention(where(batch > 0, batch, 1.0), mean_context)
            total = total + (whole + 1.0) * where(batch > 0, fixed + per_token * batch * mean_context, 0.0)
        return total

    def _chunk(self, tokens: Number, prefix: Number) -> Number:
        """Prefill attention of one layer for one chunk."""
        heads = self._heads
        return self.reading.time(heads, self.shape.head_dim, self.token_bytes, self.gpu, tokens, prefix)

    @cached_property
    def _heads(self) -> int:
        return self.shape.heads_per_gpu(self.tp)


@dataclass(frozen=True)
class Direct:
    """Lines through measured steps, with no model of the hardware behind them.

    prefill of n tokens = `prefill_step` + `prefill_token` * n + `prefill_square` * n^2, for each chunk;
    decode step = `step` + `sequence` * batch + `context` * tokens of context in the batch.
    A step that does both costs the sum, with the larger of the two constants.
    """

    step: float
    sequence: float
    context: float
    prefill_step: float
    prefill_token: float
    prefill_square: float = 0.0

    def decode(self, batch: Number, mean_context: Number) -> Line:
        """See `StepLaw.decode`; the same line everywhere."""
        return Line(self.step + self.sequence * batch, self.context + 0.0 * mean_context)

    def prefill(self, tokens: Number, chunk: Number, batch: Number, mean_context: Number) -> Number:
        """See `StepLaw.prefill`."""
        whole, _ = _chunks(tokens, chunk)
        beside = (self.sequence + self.context * mean_context) * batch
        start = where(batch > 0, max(self.step, self.prefill_step), self.prefill_step)
        return (
            (whole + 1.0) * (start + beside) + self.prefill_token * tokens + self.prefill_square * tokens**2
        )
