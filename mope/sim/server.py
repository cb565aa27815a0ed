"""What the made-up engine is: its loop, its memory, its limits. Every default is written here once."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from mope.errors import ConfigError
from mope.mapper.profile import Profile
from mope.sim.sequence import Sequence

LOOPS = ("continuous", "chunked", "slora", "disaggregated")


@dataclass(frozen=True)
class ServerConfig:
    """An engine. Memory in tokens of KV cache, times in seconds."""

    loop: Literal["continuous", "chunked", "slora", "disaggregated"] = field(
        default="chunked",
        metadata={
            "help": "continuous: whole prompts beside decodes (Orca); chunked: prompts in chunks within a token"
            " budget (Sarathi); slora: prefill alone, up to 10 decode steps between admissions; disaggregated:"
            " a prefill engine and a decode engine (DistServe)"
        },
    )
    pool_tokens: int | None = field(
        default=None, metadata={"help": "KV cache in tokens; default: what the profile's memory leaves"}
    )
    block: int = field(default=16, metadata={"help": "tokens in a KV block; slora always uses 1"})
    max_seqs: int = field(default=256, metadata={"help": "sequences that may run at once"})
    step_tokens: int = field(default=2048, metadata={"help": "token budget of a step of the chunked loop"})
    tpot_s: float | None = field(
        default=None, metadata={"help": "largest step time wished for: the chunked budget shrinks to meet it"}
    )
    overhead_s: float = field(default=0.0, metadata={"help": "seconds the engine's program adds to a step"})
    admission: Literal["reserve", "prompt"] = field(
        default="reserve",
        metadata={
            "help": "reserve: room for prompt and predicted length; prompt: for the prompt, as vLLM does"
        },
    )
    watermark: float = field(default=0.01, metadata={"help": "share of the pool kept free by `prompt`"})
    wait_steps: int = field(default=10, metadata={"help": "slora: decode steps between two admissions"})
    prefill_tokens: int | None = field(
        default=None, metadata={"help": "prompt tokens prefilled at once; slora: a sixth of the pool or 3072"}
    )
    adapter_tokens: int = field(
        default=32, metadata={"help": "slora: pool taken by each client in the batch"}
    )
    max_prompt: int | None = field(default=None, metadata={"help": "longest prompt taken"})
    max_total: int | None = field(default=None, metadata={"help": "largest prompt + output taken"})
    prefix_tokens: int = field(
        default=0, metadata={"help": "KV cache set aside for prompt starts that were read before; 0: none"}
    )

    def __post_init__(self) -> None:
        if self.loop not in LOOPS:
            raise ConfigError(f"loop {self.loop!r}", f"one of {', '.join(LOOPS)}")
        if self.admission not in ("reserve", "prompt"):
            raise ConfigError(f"admission {self.admission!r}", "reserve or prompt")
        for name in ("block", "max_seqs", "step_tokens", "wait_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}", "a whole number from 1")
        for name in ("pool_tokens", "prefill_tokens", "max_prompt", "max_total"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}", "a whole number from 1")
        if self.tpot_s is not None and not (isfinite(self.tpot_s) and self.tpot_s > 0):
            raise ConfigError(f"tpot_s = {self.tpot_s}", "seconds above 0")
        if not (isfinite(self.overhead_s) and 0 <= self.overhead_s < 60):
            raise ConfigError(f"overhead_s = {self.overhead_s}", "seconds from 0 to 60")
        if not 0 <= self.watermark < 1 or self.adapter_tokens < 0:
            raise ConfigError(f"watermark {self.watermark}, adapter_tokens {self.adapter_tokens}", "from 0")
        if self.prefix_tokens < 0 or (self.prefix_tokens and self.loop not in ("continuous", "chunked")):
            raise ConfigError(
                f"prefix_tokens = {self.prefix_tokens}, loop {self.loop}",
                "from 0, with continuous or chunked",
            )
        if self.loop == "chunked" and self.step_tokens < 2:
            raise ConfigError(
                f"step_tokens = {self.step_tokens}", "at least 2: one decode and one prompt token"
            )

    def pool(self, profile: Profile) -> int:
        """KV tokens of the engine on this hardware."""
        pool = int(profile.kv_tokens) if self.pool_tokens is None else self.pool_tokens
        if pool - self.prefix_tokens < self.block:
            raise ConfigError(
                f"a KV cache of {pool} tokens, {self.prefix_tokens} of them for prefixes", "room for a block"
            )
        return pool - self.prefix_tokens


def oversize(config: ServerConfig, pool: int, seq: Sequence) -> str:
    """Why a request never fits an engine with a KV cache of `pool` tokens; empty where it does."""
    total = seq.prompt + max(seq.output, seq.declared or 0)
    if config.max_prompt is not None and seq.prompt > config.max_prompt:
        return f"prompt above {config.max_prompt} tokens"
    if config.max_total is not None and total > config.max_total:
        return f"prompt and output above {config.max_total} tokens"
    if seq.prompt + seq.output > pool:
        return f"larger than the KV cache of {pool} tokens"
    return ""
