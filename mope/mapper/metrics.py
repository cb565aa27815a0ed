"""From tokens to seconds, tokens per second, utilisation, KV blocks and GPU-seconds, one request or arrays of them.

Utilisation is three numbers, over the life of the request in its batch, all on the engine's GPUs together:
- MFU: operations of the model over what the datasheet's peak would have done in that time;
- MBU: bytes of weights and KV cache over what the datasheet's bandwidth would have moved in that time;
- gpu_util: the share of the time in which the binding resource, at the rate it was measured to reach, has work: the
  compute-bound and the memory-bound fractions together. The rest is launch gaps, communication, the engine's program.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import exp, hypot, log
from typing import Any, NamedTuple

import numpy as np

from mope.errors import ConfigError
from mope.mapper.numbers import Floats, Number, ceil, least, most
from mope.mapper.parts import Linear
from mope.mapper.profile import Profile
from mope.mapper.steps import Layered, Line
from mope.types import Span

MOST_PREPARED = 16_384  # steps of up to so many tokens are worked out once, vectorised


@dataclass(frozen=True, slots=True)
class Load:
    """The running batch that a request joins: itself and `batch - 1` others, each with `context` tokens.

    `step_tokens` is the budget of a step with chunked prefill: decoding sequences take one each, the rest goes to
    the prompt. `block` is the number of tokens in a KV block.
    """

    batch: int = 1
    context: float = 0.0
    step_tokens: int = 2048
    block: int = 16

    def __post_init__(self) -> None:
        if self.batch < 1 or self.block < 1 or not 0 <= self.context < 1e9:
            raise ConfigError(
                f"batch {self.batch}, context {self.context}, block {self.block}", "batch, block >= 1"
            )
        if self.step_tokens < self.batch:
            raise ConfigError(
                f"a step of {self.step_tokens} tokens for a batch of {self.batch}",
                "at least one token for each sequence of the batch",
            )


class Times(NamedTuple):
    """Seconds of a request whose length is known; floats or arrays.

    `ttft` from the start of the prefill to the first token, `decode` from there to the last, `tpot` a token of it.
    """

    ttft: Number
    decode: Number
    tpot: Number

    @property
    def latency(self) -> Number:
        """From the start of the prefill to the last token."""
        return self.ttft + self.decode


class Shares(NamedTuple):
    """Utilisation in [0, 1], see the module; floats or arrays."""

    mfu: Number
    mbu: Number
    gpu_util: Number


class Impact(NamedTuple):
    """What admitting a request does to a batch: seconds per token before and after, and its longest step."""

    tpot_before: float
    tpot_after: float
    longest_step: float


class Mapper:
    """A profile and a load turned into metrics. Methods take tokens as floats or as arrays of one shape.

    Raises `ConfigError` where the load alone does not fit the KV cache.
    """

    def __init__(self, profile: Profile, load: Load | None = None) -> None:
        self.profile, self.load = profile, load or Load()
        self.others = float(self.load.batch - 1)
        held = self.others * self.load.context
        if held > profile.kv_tokens:
            raise ConfigError(
                f"{self.load.batch} sequences of {self.load.context:g} tokens on {profile.name}",
                f"at most {profile.kv_tokens:,.0f} tokens in the KV cache",
                "lower the batch or the context, or use more GPUs",
            )
        self._chunk = float(self.load.step_tokens) - self.others
        if isinstance(profile.law, Layered):
            profile.law.prepare(
                self.load.batch - 1, min(self.load.step_tokens, MOST_PREPARED) - self.load.batch + 1
            )

    def times(self, prompt_tokens: Number, output_tokens: Number, ttft: Number | None = None) -> Times:
        """Times of requests with so many tokens; `ttft` is their `prefill`, where it is at hand.

        The first output token comes with the prefill; each later one is a step of the whole batch, whose context
        grows by this request's tokens while that of the others stays what it is.
        """
        ttft = self.prefill(prompt_tokens) if ttft is None else ttft
        steps = _steps(output_tokens)
        context = self._context(prompt_tokens, steps)
        step = self._line(context).at(context)
        return Times(ttft, steps * step, step)

    def prefill(self, prompt_tokens: Number) -> Number:
        """Seconds from the start of the prefill to the first token."""
        return self.profile.law.prefill(prompt_tokens, self._chunk, self.others, self.load.context)

    def _context(self, prompt_tokens: Number, steps: Number) -> Number:
        """Mean tokens in the batch over the decode steps."""
        return self.others * self.load.context + prompt_tokens + (steps + 1.0) / 2.0

    def _line(self, context: Number) -> Line:
        law, batch = self.profile.law, self.others + 1.0
        mean = context / batch
        if isinstance(mean, np.ndarray) or self.profile.shape.window:
            return law.decode(batch, mean)
        side = isinstance(law, Layered) and mean <= law.attention.turn
        if side not in self._lines:
            self._lines[side] = law.decode(batch, mean)
        return self._lines[side]

    @cached_property
    def _lines(self) -> dict[bool, Line]:
        """The line of this batch on both sides of the turn."""
        return {}

    def shares(self, prompt_tokens: Number, output_tokens: Number, times: Times) -> Shares:
        """Utilisation over the life of the requests, whose times are `times`."""
        steps = _steps(output_tokens)
        reading = self._reading_work(prompt_tokens)
        decoding = self._decoding_work(steps, self._context(prompt_tokens, steps))
        operations, moved = reading[0] + decoding[0], reading[1] + decoding[1]
        busy = least(self._bound(*reading), times.ttft) + least(self._bound(*decoding), times.decode)
        latency = times.latency
        gpu, tp = self.profile.gpu, self.profile.tp
        mfu, mbu = operations / (latency * (tp * gpu.flops_bf16)), moved / (latency * (tp * gpu.bandwidth))
        # Fitted efficiencies are means: a single point may lie above them.
        return Shares(least(mfu, 1.0), least(mbu, 1.0), least(busy / latency, 1.0))

    def _bound(self, operations: Number, moved: Number) -> Number:
        """Seconds of the binding resource at the rates that were measured to be reached."""
        compute, memory = self._reached
        return most(operations / compute, moved / memory)

    @cached_property
    def _reached(self) -> tuple[float, float]:
        """Operations and bytes a second that all GPUs reach together."""
        law, gpu, tp = self.profile.law, self.profile.gpu, self.profile.tp
        linear = law.linear if isinstance(law, Layered) else Linear()
        return tp * gpu.flops_bf16 * min(1.0, linear.compute), tp * gpu.bandwidth * min(1.0, linear.memory)

    @cached_property
    def _weights(self) -> tuple[float, float, float, float]:
        """Operations of a token in the layers and in the head; bytes of weights with all experts, of one's share."""
        shape = self.profile.shape
        head = float(shape.vocab * shape.hidden)
        fixed = shape.layers * shape.layer_weights
        experts = shape.layers * (shape.layer_weights - shape.active_layer_weights)
        layers = 2.0 * shape.layers * shape.active_layer_weights
        return layers, 2.0 * head, (fixed + head) * shape.bytes_per_weight, experts * shape.bytes_per_weight

    @cached_property
    def _pair(self) -> float:
        """Operations that attention spends on one pair of tokens in all layers."""
        shape = self.profile.shape
        return 4.0 * shape.layers * shape.heads * shape.head_dim

    def _reading_work(self, prompt_tokens: Number) -> tuple[Number, Number]:
        """Operations and bytes of the prefill, with what the others decode beside it."""
        layers, head, weights, _ = self._weights
        chunks = ceil(prompt_tokens / self._chunk)
        beside, held = chunks * self.others, chunks * self.others * self.load.context
        pairs = prompt_tokens * prompt_tokens / 2.0 + held
        operations = layers * (prompt_tokens + beside) + head * (1.0 + beside) + self._pair * pairs
        cached = prompt_tokens + prompt_tokens * (chunks - 1.0) / 2.0 + held
        return operations, weights * chunks + self.profile.kv_bytes_per_token * cached

    def _decoding_work(self, steps: Number, context: Number) -> tuple[Number, Number]:
        """Operations and bytes of the decode steps of the whole batch."""
        layers, head, weights, experts = self._weights
        shape, batch = self.profile.shape, self.others + 1.0
        idle = experts and experts * (1.0 - shape.active_experts / shape.experts) ** self.others
        operations = batch * (layers + head) + self._pair * context
        return steps * operations, steps * (weights - idle + self.profile.kv_bytes_per_token * context)

    def gpu_seconds(self, times: Times, added: Number) -> Number:
        """GPU-seconds of all GPUs together: what the prefill adds, and an equal share of each decode step."""
        return self.profile.tp * (added + times.decode / (self.others + 1.0))

    def added(self, prompt_tokens: Number, ttft: Number) -> Number:
        """Seconds that a prefill adds to the steps of the others that it runs beside."""
        if not self.others:
            return ttft
        return most(ttft - ceil(prompt_tokens / self._chunk) * self._beside, 0.0)

    @cached_property
    def _beside(self) -> Number:
        """Seconds that a step of the others alone would have taken."""
        held = self.others * self.load.context
        return self.profile.law.decode(self.others, self.load.context).at(held)

    def blocks(self, tokens: Number) -> Number:
        """KV blocks that hold so many tokens."""
        return ceil(tokens / float(self.load.block))

    def kv_bytes(self, tokens: Number) -> Number:
        """Bytes that so many tokens take in the KV cache over all GPUs."""
        return tokens * self.profile.kv_bytes_per_token

    def impact(self, prompt_tokens: float, output_tokens: float) -> Impact:
        """What a request of this size does to the batch of the load, which it is not yet part of."""
        law, others, context = self.profile.law, self.others, self.load.context
        before = float(law.decode(others, context).at(others * context)) if others else 0.0
        first = min(prompt_tokens, self._chunk)
        longest = float(law.prefill(first, self._chunk, others, context))
        return Impact(before, float(self.times(prompt_tokens, output_tokens).tpot), longest)

    def columns(self, prompt_tokens: Floats, lengths: Floats) -> dict[str, Floats]:
        """Metrics of n requests; `lengths` [n, 3] are low, median and high output tokens.

        Keys: ttft_s, and for tpot_s, latency_s, tokens_per_s, gpu_s, kv_blocks each the median and, with `_low` and
        `_high`, the bounds of the 80 % interval; mfu, mbu, gpu_util at the median. Arrays [n].
        """
        prompt = np.asarray(prompt_tokens, np.float64)
        ttft = np.asarray(self.prefill(prompt))
        added = self.added(prompt, ttft)
        each = [self._metrics(prompt, lengths[:, i], ttft, added) for i in range(3)]
        shares = self.shares(prompt, lengths[:, 1], self.times(prompt, lengths[:, 1], ttft))
        found = {"ttft_s": ttft}
        for name, low, mid, high in zip(SPANS, *each, strict=True):
            spread = 0.0 if name == "kv_blocks" else self.profile.spread
            found |= dict(
                zip((name, f"{name}_low", f"{name}_high"), _widen(low, mid, high, spread), strict=True)
            )
        return found | {name: np.asarray(value) for name, value in shares._asdict().items()}

    def _metrics(self, prompt: Number, output: Number, ttft: Number, added: Number) -> tuple[Number, ...]:
        """In the order of `SPANS`, at one length each."""
        times = self.times(prompt, output, ttft)
        latency = times.latency
        own = self.gpu_seconds(times, added)
        return times.tpot, latency, output / latency, own, self.blocks(prompt + output)


def _steps(output_tokens: Number) -> Number:
    """Decode steps: the first token comes with the prefill."""
    return most(output_tokens - 1.0, 0.0)


SPANS = ("tpot_s", "latency_s", "tokens_per_s", "gpu_s", "kv_blocks")


def _widen(low: Number, mid: Number, high: Number, spread: float) -> tuple[Floats, Floats, Floats]:
    """(median, low, high): the interval from the length and that of the hardware, as independent factors."""
    low, high = np.minimum(low, high), np.maximum(low, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        down, up = np.log(mid / low), np.log(high / mid)
    down, up = (np.exp(np.hypot(np.nan_to_num(side, posinf=50.0), spread)) for side in (down, up))
    return np.asarray(mid), np.asarray(mid / down), np.asarray(mid * up)


def span(low: Any, mid: Any, high: Any, spread: float) -> Span:
    """`_widen` for one number, without arrays."""
    if low > high:
        low, high = high, low
    if low <= 0.0 or mid <= 0.0:
        return Span(mid, low, high)
    down, up = exp(hypot(log(mid / low), spread)), exp(hypot(log(high / mid), spread))
    return Span(mid, mid / down, mid * up)
