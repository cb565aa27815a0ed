"""How long the steps of the made-up server take: a hardware profile's law, and what the engine's program adds."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np

from mope.mapper.numbers import Number
from mope.mapper.profile import Profile
from mope.mapper.steps import Direct, Layered
from mope.sim.stretch import Stretch

LEAST_TABLE = 2048  # tokens in a table of steps
REANCHOR = 64  # steps after which the line of a model with a sliding window is drawn anew


class Chunk(NamedTuple):
    """`tokens` of a prompt to read after `prefix` tokens that are in the cache; `last` where the prompt ends."""

    tokens: int
    prefix: int = 0
    last: bool = True


class Costs:
    """Seconds of steps. `overhead_s` is added to each, for what the engine's own program does between two."""

    def __init__(self, profile: Profile, overhead_s: float = 0.0) -> None:
        self.profile, self.law, self.overhead_s = profile, profile.law, overhead_s
        self.window = profile.shape.window
        self._turn = self.law.attention.turn if isinstance(self.law, Layered) else inf
        self._heads = profile.shape.heads_per_gpu(profile.tp)
        self._tokens: list[float] = []
        self._read: list[float] = []
        self._sampled: list[float] = []
        self._beside: dict[tuple[int, bool], tuple[float, float]] = {}
        self._known: dict[tuple[int, bool], tuple[float, float]] = {}

    def stretch(self, now: float, step: int, batch: int, context: int) -> Stretch:
        """Decode steps of `batch` sequences with `context` tokens in all, from `now` on."""
        mean = context / batch
        seconds, per_token = self._line(batch, mean)
        until = step + self._holds(batch, context, mean)
        return Stretch(now, step, seconds + per_token * context, per_token * batch, until)

    def _line(self, batch: int, mean: float) -> tuple[float, float]:
        key = batch, mean <= self._turn
        found = None if self.window else self._known.get(key)
        if found is None:
            line = self.law.decode(float(batch), mean)
            found = float(line.seconds) + self.overhead_s, float(line.per_token)
            self._known[key] = found
        return found

    def _holds(self, batch: int, context: int, mean: float) -> int:
        """Steps for which the line stays the same: up to the kernel's turn, a few where a window slides."""
        steps = REANCHOR if self.window else 1 << 40
        if mean <= self._turn < inf:
            steps = min(steps, int((self._turn * batch - context) // batch) + 1)
        return steps

    def mixed(self, chunks: Sequence[Chunk], batch: int, context: int) -> float:
        """Seconds of one step that reads `chunks` beside `batch` decoding sequences with `context` tokens in all."""
        law = self.law
        if isinstance(law, Direct):
            return self.overhead_s + self._direct(law, chunks, batch, context)
        return self.overhead_s + self._layered(law, chunks, batch, context)

    def _direct(self, law: Direct, chunks: Sequence[Chunk], batch: int, context: int) -> float:
        seconds = max(law.step, law.prefill_step) if batch else law.prefill_step
        seconds += law.sequence * batch + law.context * context
        for tokens, prefix, _ in chunks:
            # A later chunk costs what the longer prompt costs more.
            seconds += law.prefill_token * tokens + law.prefill_square * tokens * (tokens + 2 * prefix)
        return seconds

    def _layered(self, law: Layered, chunks: Sequence[Chunk], batch: int, context: int) -> float:
        tokens, sampled, attention = batch, batch, 0.0
        for chunk in chunks:
            tokens += chunk.tokens
            sampled += chunk.last
            if chunk.prefix or chunk.tokens >= len(self._read):
                attention += self._reading(law, float(chunk.tokens), float(chunk.prefix))
            else:
                attention += self._read[chunk.tokens]
        seconds = self._rows(law, tokens, max(sampled, 1)) + attention + law.shape.layers * law.reading.fixed
        if batch:
            fixed, per_token = self._attention(law, batch, context / batch)
            seconds += fixed + per_token * context
        return seconds

    def _reading(self, law: Layered, tokens: Number, prefix: float) -> Any:
        """Attention of one chunk in all layers, without what is paid once for all chunks."""
        shape, reading = law.shape, law.reading
        one = reading.time(self._heads, shape.head_dim, law.token_bytes, law.gpu, tokens, prefix)
        return shape.layers * (one - reading.fixed)

    def _attention(self, law: Layered, batch: int, mean: float) -> tuple[float, float]:
        """Attention of the decoding sequences of a mixed step: seconds, and seconds per token of context."""
        key = batch, mean <= self._turn
        found = None if self.window else self._beside.get(key)
        if found is None:
            line, alone = law.decode(float(batch), mean), law.rows(float(batch), float(batch))
            found = self._beside[key] = float(line.seconds - alone), float(line.per_token)
        return found

    def _rows(self, law: Layered, tokens: int, sampled: int) -> float:
        """`law.rows`: what all tokens take, and what the sampled ones take more. Both from tables made once."""
        if tokens >= len(self._tokens) or sampled >= len(self._sampled):
            most = 2 * max(tokens, sampled, LEAST_TABLE)
            all_tokens = np.arange(most, dtype=np.float64)
            # One token stands for none: a step without tokens does not come.
            all_tokens[0] = 1.0
            one = float(law.rows(1.0, 1.0))
            self._read = np.asarray(self._reading(law, all_tokens, 0.0)).tolist()
            self._tokens = np.asarray(law.rows(all_tokens, 1.0)).tolist()
            self._sampled = (np.asarray(law.rows(np.ones(most), all_tokens)) - one).tolist()
        return self._tokens[tokens] + self._sampled[sampled]

    def transfer(self, tokens: int) -> float:
        """Seconds to move the KV cache of so many tokens to another engine, over the GPU's link."""
        gpu = self.profile.gpu
        return tokens * self.profile.kv_bytes_per_token / (gpu.link_bandwidth * self.profile.tp)
