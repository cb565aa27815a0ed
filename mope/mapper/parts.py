"""The parts that the time of a step is made of, each a formula with fitted numbers.

All times in seconds, all sizes for one GPU. The formulas take floats or arrays. A roofline alone (work over peak) is
32-44 % off on measured layers; a few fitted numbers per part bring that to 2-4 % (docs/profiles.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mope.mapper.gpus import Gpu
from mope.mapper.numbers import Number, ceil, where

TILE = 128  # rows and columns of a matrix product that one multiprocessor takes at a time
SMALL = 64  # up to so many rows, libraries use kernels that read the weights once


class Matmul(NamedTuple):
    """A product of activations [tokens, inputs] with weights [inputs, outputs], in one of `experts` copies.

    `share` is the part of the tokens that an expert sees: 1 for a dense layer.
    """

    inputs: float
    outputs: float
    experts: int = 1
    share: float = 1.0
    weight_bytes: float = 2.0

    def touched(self, tokens: Number) -> Number:
        """Experts that at least one of the tokens is sent to, where routing is even."""
        if self.share == 1.0:
            return float(self.experts)
        return self.experts * (1.0 - (1.0 - self.share) ** tokens)


@dataclass(frozen=True, slots=True)
class Linear:
    """Everything in a layer but attention: matrix products, norms, activations.

    time = fixed + moved / (elementwise * bandwidth) + sum over products of (compute^k + memory^k)^(1/k), k = blend
    compute = operations, in whole waves of tiles for the part `waves`, / (compute * peak)
    memory = (weights * (1 + reread where tokens > 64) + activations) / (memory * bandwidth)

    `compute`, `memory` and `elementwise` are shares of the datasheet's rates. Since the blend lies above the larger
    of its two sides, fitted shares may exceed 1. Form: wave quantisation as in NVIDIA's matrix multiplication guide.
    """

    compute: float = 0.72
    memory: float = 0.87
    fixed: float = 25e-6
    elementwise: float = 0.75
    waves: float = 0.25
    reread: float = 0.0
    blend: float = 2.0

    def time(self, products: tuple[Matmul, ...], moved: float, gpu: Gpu, tokens: Number) -> Number:
        """Seconds of one layer for `tokens`; `moved` bytes of activations per token go through norms and the like."""
        total: Number = self.fixed + tokens * (moved / (self.elementwise * gpu.bandwidth))
        for product in products:
            total = total + self.product(product, gpu, tokens)
        return total

    def product(self, product: Matmul, gpu: Gpu, tokens: Number) -> Number:
        """Seconds of one matrix product."""
        touched = product.touched(tokens)
        rows = tokens * product.share
        even = product.experts * rows * product.outputs / (TILE * TILE * gpu.units)
        whole = ceil(touched * ceil(rows / TILE) * ceil(product.outputs / TILE) / gpu.units)
        waves = self.waves * whole + (1.0 - self.waves) * even
        compute = waves * (2 * TILE * TILE * gpu.units * product.inputs / (self.compute * gpu.flops_bf16))
        weights = touched * (product.inputs * product.outputs * product.weight_bytes)
        weights = weights * (1.0 + where(rows > SMALL, self.reread, 0.0))
        through = product.experts * rows * (2 * (product.inputs + product.outputs))
        memory = (weights + through) / (self.memory * gpu.bandwidth)
        result: Number = (compute**self.blend + memory**self.blend) ** (1.0 / self.blend)
        return result


@dataclass(frozen=True, slots=True)
class Decode:
    """Attention of one layer for sequences that each add one token.

    time = fixed + sequence * kv_heads * n + context_tokens * bytes_per_token / bandwidth * slow * (1 + imbalance)
    slow = `short` up to a mean context of `turn` tokens, `long` above (libraries switch kernels);
    imbalance = `waves` * (last wave's idle share) where there are more blocks than multiprocessors, else `idle`.

    Affine in the context at a fixed number of sequences, so that many steps have a closed form.
    """

    fixed: float = 12e-6
    sequence: float = 2.5e-8
    short: float = 1.2
    long: float = 1.2
    turn: float = 0.0
    waves: float = 0.3
    idle: float = 0.3

    def line(
        self, token_bytes: float, kv_heads: float, gpu: Gpu, n: Number, mean: Number
    ) -> tuple[Number, Number]:
        """(seconds without context, seconds per context token) of `n` sequences with `mean` tokens each."""
        blocks = n * kv_heads / gpu.units
        halves = blocks / 2
        idle = where(blocks > 1, self.waves * (ceil(halves) / halves - 1.0), self.idle)
        slow = where(mean <= self.turn, self.short, self.long)
        return self.fixed + self.sequence * kv_heads * n, token_bytes / gpu.bandwidth * slow * (1.0 + idle)


@dataclass(frozen=True, slots=True)
class Prefill:
    """Attention of one layer for a chunk of `c` prompt tokens after `p` tokens that are already in the cache.

    time = fixed + prompt + row * heads * c + (own * c^2 / 2 + prefix * c' * p) * 4 * heads * head_dim / peak
         + reading * p * bytes_per_token / bandwidth,  c' = c in whole tiles of 128.

    `fixed` is paid once a call, the rest by each prompt in it. `own` and `prefix` are
    datasheet peak over what is reached. Linear in its parts, so that chunks have a closed sum.
    """

    fixed: float = 1e-5
    prompt: float = 3e-7
    row: float = 9e-10
    own: float = 2.0
    prefix: float = 1.8
    reading: float = 1.8

    def time(self, heads: float, head_dim: int, token_bytes: float, gpu: Gpu, c: Number, p: Number) -> Number:
        """Seconds of one chunk of at least one token in one layer."""
        tiled = ceil(c / TILE) * float(TILE)
        work = 4.0 * heads * head_dim / gpu.flops_bf16
        own: Number = self.own * work * c * c / 2.0
        earlier = (self.prefix * work * tiled + self.reading * token_bytes / gpu.bandwidth) * p
        return self.fixed + self.prompt + self.row * heads * c + own + earlier


@dataclass(frozen=True, slots=True)
class Link:
    """An all-reduce over the GPUs of one model: latency plus bytes at a share of the link's rate."""

    latency: float = 1.5e-5
    share: float = 0.6

    def time(self, size: Number, gpu: Gpu, tp: int) -> Number:
        """Seconds for `size` bytes; a ring sends 2 (tp - 1) / tp of them. Nothing on one GPU."""
        if tp == 1:
            return 0.0
        return self.latency + size * (2.0 * (tp - 1) / tp / (self.share * gpu.link_bandwidth))


@dataclass(frozen=True, slots=True)
class Overhead:
    """What the engine's own program adds to each step: scheduling, sampling, preparing inputs."""

    step: float = 5e-4
    sequence: float = 1.3e-5
