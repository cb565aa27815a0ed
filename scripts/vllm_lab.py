"""A real vLLM on a CPU, made small: a random Llama, an engine that is stepped by hand, requests of tenants.

Needs the environment of `make test-vllm`. Step numbers are exact and repeat; seconds are not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

WORDS = 512
CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
made: list[dict[str, Any]] = []  # arguments with which vLLM made its scheduler
STEP_LIMIT = 20_000


def tiny_model(folder: Path) -> Path:
    """A Llama of 0.5 million random weights with a tokenizer of words w4 to w511, saved in `folder`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    if (folder / "tokenizer.json").is_file():
        return folder
    words = {word: n for n, word in enumerate(["<unk>", "<s>", "</s>", "<pad>"])}
    words |= {f"w{n}": n for n in range(4, WORDS)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = CHAT
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def recording(*args: Any, **named: Any) -> Any:
    """vLLM's own scheduler; how it was made is kept, so that others can take its place in the same engine."""
    made.append(named)
    return stock_class(named)(*args, **named)


def stock_class(named: dict[str, Any]) -> Any:
    """The class vLLM would take."""
    if named["vllm_config"].scheduler_config.async_scheduling:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler

        return AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    return Scheduler


def make_engine(model: Path, **more: Any) -> Any:
    """vLLM in this process, stepped by hand with `Run`."""
    from vllm import LLM

    settings = {"max_model_len": 1024, "max_num_seqs": 4, "enable_prefix_caching": False} | more
    return LLM(
        str(model), dtype="float32", enforce_eager=True, distributed_executor_backend="uni",
        scheduler_cls=f"{__name__}.recording", disable_log_stats=True, **settings,
    )  # fmt: skip


@dataclass
class Job:
    """A request of the tests; `forecast` goes with it where it is given."""

    tenant: str
    prompt: int = 16
    tokens: int = 64
    at: int = 0  # step before which it comes
    forecast: float | None = None
    priority: int = 0


@dataclass
class Log:
    """What became of the jobs, by their place: steps of first and last token, tokens made; the last step."""

    first: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    made: dict[int, int] = field(default_factory=dict)
    steps: int = 0
    progress: list[dict[int, int]] = field(default_factory=list)  # after each step, where asked for

    def mean_last(self, jobs: Sequence[Job], tenant: str) -> float:
        """Mean step in which a tenant's jobs ended."""
        steps = [self.last[n] for n, job in enumerate(jobs) if job.tenant == tenant and n in self.last]
        return sum(steps) / len(steps)


@contextmanager
def scheduler(engine: Any, make: Callable[..., Any] | None = None) -> Iterator[Any]:
    """A new scheduler in the engine: vLLM's own, or what `make` makes of the same arguments."""
    core = engine.llm_engine.engine_core.engine_core
    named = made[-1]
    core.scheduler = (make or stock_class(named))(**named)
    yield core.scheduler


def run(
    engine: Any,
    jobs: Sequence[Job],
    *,
    each_step: Callable[[int, list[str]], None] | None = None,
    keep_progress: bool = False,
    most_steps: int = 0,
    prefix: str = "job",
) -> Log:
    """Feed the jobs and step until nothing is left, or for `most_steps`; then what is left is aborted.

    `each_step(step, ids)` may do as it likes between two steps.
    """
    inner, log = engine.llm_engine, Log()
    ids = [f"{prefix}-{n}" for n in range(len(jobs))]
    place, alias = {one: n for n, one in enumerate(ids)}, {}
    coming = sorted(range(len(jobs)), key=lambda n: jobs[n].at)
    while (coming or inner.has_unfinished_requests()) and not 0 < most_steps <= log.steps:
        while coming and jobs[coming[0]].at <= log.steps:
            n = coming.pop(0)
            alias[n] = inner.add_request(
                ids[n], _prompt(n, jobs[n]), _params(jobs[n]), priority=jobs[n].priority
            )
        if each_step is not None:
            each_step(log.steps, [alias[n] or ids[n] for n in sorted(alias)])
        log.steps += 1
        assert log.steps < STEP_LIMIT, "the engine does not come to an end"
        for output in inner.step():
            n = place[output.request_id]
            log.made[n] = len(output.outputs[0].token_ids)
            log.first.setdefault(n, log.steps)
            if output.finished:
                log.last[n] = log.steps
        if keep_progress:
            log.progress.append(dict(log.made))
    inner.abort_request([alias[n] or ids[n] for n in alias if n not in log.last], internal=True)
    inner.step()  # tells of the last that finished
    return log


def _prompt(number: int, job: Job) -> Any:
    return {"prompt_token_ids": [4 + (number * 7 + place) % (WORDS - 4) for place in range(job.prompt)]}


def _params(job: Job) -> Any:
    from vllm import SamplingParams

    extra: dict[str, Any] = {"tenant": job.tenant}
    if job.forecast is not None:
        extra["predicted_tokens"] = job.forecast
    return SamplingParams(max_tokens=job.tokens, ignore_eos=True, temperature=0.0, extra_args=extra)


def heavy_and_light(tokens: int = 64) -> list[Job]:
    """Forty requests of one tenant that came before eight of another."""
    return [Job("heavy", tokens=tokens)] * 40 + [Job("light", tokens=tokens)] * 8


def quick_settings(**more: Any) -> Any:
    """Settings of the adapter without a wall clock: steps repeat exactly."""
    from mope.serving_adapters.settings import Settings

    return Settings(clock="steps", **more)


def fair(**more: Any) -> Callable[..., Any]:
    """Makes the fair scheduler with these settings."""

    def make(**named: Any) -> Any:
        from mope.serving_adapters.vllm_adapter import fair_class

        made_one = fair_class(stock_class(named))(**named)
        made_one.be_fair(quick_settings(**more), named["vllm_config"], False)
        return made_one

    return make


def write(folder: Path, results: dict[str, Any], table: str) -> None:
    """Results as JSON with what they were measured on, and as a Markdown table; printed, too."""
    import json

    import vllm

    from mope.machine import cpu_name, load_1m

    folder.mkdir(parents=True, exist_ok=True)
    results = {"machine": cpu_name(), "load_1m": load_1m(), "vllm": str(vllm.__version__), **results}
    for name, text in (("results.json", json.dumps(results, indent=1) + "\n"), ("results.md", table)):
        half = folder / f"{name}.part"
        half.write_text(text)
        half.replace(folder / name)
    print(table)
