"""A real SGLang on a CPU under a queue of two tenants: `python world.py PLAN.json FOUND.json`.

Runs in the engine's own virtual environment (scripts/sglang_cpu.sh makes it). The plan says what is sent and how the
engine is set; environment variables are the caller's. A made-up Llama of two layers stands for the model.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVER = {
    "device": "cpu", "attention_backend": "torch_native", "sampling_backend": "pytorch", "dtype": "float32",
    "disable_cuda_graph": True, "disable_overlap_schedule": True, "mem_fraction_static": 0.2,
    "max_total_tokens": 4096, "max_running_requests": 4, "skip_server_warmup": True,
}  # fmt: skip
LIMIT_S = float(os.environ.get("WORLD_LIMIT_S", 240))
WARM_TOKENS = 900  # four of them fit in the memory
GROUPS = [["heavy", 40, 64], ["light", 8, 64]]
Sent = dict[str, Any]


def make_model(folder: Path) -> None:
    """Random weights, 0.5 million; words w4 to w511."""
    if (folder / "config.json").exists():
        return
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=4096,
    )  # fmt: skip
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    words = {**{word: i for i, word in enumerate(special.values())}, **{f"w{i}": i for i in range(4, 512)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    fast.save_pretrained(folder)
    LlamaForCausalLM(config).save_pretrained(folder)


def requests_of(plan: dict[str, Any]) -> list[Sent]:
    """In the order they are sent: `groups` of [tenant, how many, tokens], then `mixed` as they stand."""
    found = [
        {"rid": f"{tenant}/{i}", "tenant": tenant, "tokens": tokens}
        for tenant, count, tokens in plan.get("groups", [] if "mixed" in plan else GROUPS)
        for i in range(count)
    ]
    found += plan.get("mixed", [])
    for i, one in enumerate(found):
        one["prompt"] = one.get("prompt") or " ".join(f"w{4 + (7 * i + k) % 500}" for k in range(10))
    return found


def sampling(one: Sent) -> dict[str, Any]:
    """Greedy, exactly as long as it says; with a forecast where the plan gives one."""
    words: dict[str, Any] = {"max_new_tokens": one["tokens"], "temperature": 0, "ignore_eos": True}
    if "forecast" in one:
        words["custom_params"] = {"predicted_tokens": one["forecast"]}
    if "bound" in one:  # the length is not to be read off the bound
        words["max_new_tokens"] = one["bound"]
        words["custom_params"] = {**words.get("custom_params", {}), "ends_at": one["tokens"]}
    return words


class InProcess:
    """`Engine`: the requests are all in the scheduler's list before it goes on."""

    def __init__(self, plan: dict[str, Any], model: Path) -> None:
        from sglang.srt.entrypoints.engine import Engine

        self.engine = Engine(model_path=str(model), **SERVER | plan.get("server", {}))

    async def generate(self, one: Sent) -> dict[str, Any]:
        found = await self.engine.async_generate(
            one["prompt"], sampling(one), rid=one["rid"], priority=one.get("priority")
        )
        return dict(found["meta_info"])

    async def say(self, what: str) -> None:
        """To the scheduler alone: the front end would hold new requests back."""
        from sglang.srt.managers import io_struct

        manager = self.engine.tokenizer_manager
        manager.auto_create_handle_loop()
        message = (
            io_struct.PauseGenerationReqInput(mode="in_place")
            if what == "pause"
            else io_struct.ContinueGenerationReqInput()
        )
        await manager._async_dispatch_to_scheduler(message)

    def abort(self, rid: str) -> None:
        self.engine.tokenizer_manager.abort_request(rid)

    async def play(self, plan: dict[str, Any]) -> dict[str, Any]:
        """The rounds of a plan, one after the other; then two requests more so that the end is seen."""
        found = {"seconds": 0.0, "done": {}}
        for part in plan.get("rounds", [plan]):
            found["seconds"] += await self.round(part, found["done"])
        for i in range(2):
            await self.generate({"rid": f"tail/{i}", "prompt": "w9 w8", "tokens": 2})
        return found

    async def round(self, plan: dict[str, Any], done: dict[str, Any]) -> float:
        """Send everything, let it run, abort what the plan says. Returns the seconds it took."""

        async def one(request: Sent) -> None:
            done[request["rid"]] = await self.generate(request)

        sent = requests_of(plan)
        await self.say("pause")
        tasks = [asyncio.create_task(one(request)) for request in sent]
        await asyncio.sleep(plan.get("settle_s", 3))
        begun = time.monotonic()
        await self.say("continue")
        if plan.get("abort"):
            while len(done) < plan["abort_after"]:
                await asyncio.sleep(0.005)
            for request in sent[::2]:
                self.abort(request["rid"])
        await asyncio.gather(*tasks)
        return time.monotonic() - begun

    def close(self) -> None:
        self.engine.shutdown()


@contextmanager
def served(plan: dict[str, Any], model: Path, port: int) -> Iterator[str]:
    """The HTTP server as a user starts it."""
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in (SERVER | plan.get("server", {})).items()
        if value is not False
    ]
    command = [
        sys.executable,
        "-m",
        "sglang.launch_server",
        "--model-path",
        str(model),
        "--port",
        str(port),
        *flags,
    ]
    with open(os.environ["MOPE_WATCH"] + "/server.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)


async def play_http(plan: dict[str, Any], url: str) -> dict[str, Any]:
    """Streaming clients; four requests of nobody's keep the engine busy until all the others wait."""
    import aiohttp

    done: dict[str, dict[str, Any]] = {}
    tagger = make_tagger(plan)
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        await ready(session, url)

        async def one(request: Sent, started: Callable[[], None] = lambda: None) -> None:
            body = {"model": "m", "prompt": request["prompt"], "stream": True, "max_tokens": request["tokens"],
                    "temperature": 0, "ignore_eos": True, "stream_options": {"include_usage": True}}  # fmt: skip
            body |= {"rid": request["rid"], **tagger.fields(request)}
            if "forecast" in request:
                body["custom_params"] = {"predicted_tokens": request["forecast"]}
            headers = {"x-smg-routing-key": request["tenant"]} if plan.get("header", True) else {}
            made = 0
            async with session.post(f"{url}/v1/completions", json=body, headers=headers) as answer:
                answer.raise_for_status()
                async for piece in pieces(answer):
                    made = (piece.get("usage") or {}).get("completion_tokens", made + 1)
                    started()
                    tagger.progress(request, made)
            tagger.finish(request, made)
            done[request["rid"]] = {"completion_tokens": made, "at": time.monotonic()}

        sent = requests_of(plan)
        busy = [asyncio.Event() for _ in range(4)]
        warm = [
            {"rid": f"warm/{i}", "tenant": "warm", "prompt": "w5 w6", "tokens": WARM_TOKENS} for i in range(4)
        ]
        nobody = [
            asyncio.create_task(one(request, event.set)) for request, event in zip(warm, busy, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in busy))
        tasks = []
        for request in sent:
            tasks.append(asyncio.create_task(one(request)))
            await asyncio.sleep(0.002)
        await waiting(session, url, len(sent))
        for task in nobody:  # the clients hang up
            task.cancel()
        await asyncio.gather(*nobody, return_exceptions=True)
        await asyncio.gather(*tasks)
        async with session.get(f"{url}/metrics") as answer:
            metrics = await answer.text() if answer.status == 200 else ""
    order = [rid for rid in sorted(done, key=lambda rid: done[rid]["at"]) if not rid.startswith("warm/")]
    return {"done": done, "order": order, "metrics": metrics}


async def ready(session: Any, url: str) -> None:
    """Wait for the server; the caller's time box ends it where it never comes."""
    while True:
        try:
            async with session.get(f"{url}/health") as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        await asyncio.sleep(0.5)


async def waiting(session: Any, url: str, count: int) -> None:
    """Until so many requests wait. What the server says of itself lags behind."""
    for _ in range(1200):
        async with session.get(f"{url}/v1/loads?include=core") as answer:
            if (await answer.json())["loads"][0]["num_waiting_reqs"] >= count:
                return
        await asyncio.sleep(0.05)


async def pieces(answer: Any) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each server-sent event."""
    async for line in answer.content:
        text = line.decode().strip()
        if text.startswith("data: ") and text != "data: [DONE]":
            yield json.loads(text[6:])


class Untagged:
    """No priorities."""

    def fields(self, request: Sent) -> dict[str, Any]:
        return {}

    def progress(self, request: Sent, made: int) -> None:
        pass

    def finish(self, request: Sent, made: int) -> None:
        pass


class Tagged(Untagged):
    """Priorities by `FairTagger`, as a gateway would send them."""

    def __init__(self, dialect: str) -> None:
        from mope.serving_adapters.tags import FairTagger

        self.tagger = FairTagger(dialect)

    def fields(self, request: Sent) -> dict[str, Any]:
        from mope.types import Forecast, Request

        words = Request("", request["rid"], request["tenant"], prompt_tokens=10, max_tokens=request["tokens"])
        forecast = Forecast.of_tokens(request["forecast"]) if "forecast" in request else None
        return {"priority": self.tagger.tag(words, time.monotonic(), forecast)}

    def progress(self, request: Sent, made: int) -> None:
        self.tagger.progress(request["rid"], made, time.monotonic())

    def finish(self, request: Sent, made: int) -> None:
        from mope.types import Usage

        self.tagger.finish(request["rid"], Usage(made), time.monotonic())


def make_tagger(plan: dict[str, Any]) -> Untagged:
    return Tagged(plan["tags"]) if plan.get("tags") else Untagged()


def watched(folder: Path) -> dict[str, Any]:
    """What the watching plug-in wrote: by process, in the order of their names."""

    def lines(name: str) -> list[list[str]]:
        return [path.read_text().splitlines() for path in sorted(folder.glob(f"{name}-*"))]

    ended = {}
    for line in (lines("ended") or [[]])[0]:
        at, made, retracted, rid = line.split(" ", 3)
        ended[rid] = [int(at), int(made), int(retracted)]
    accounts = [json.loads(text[0]) for text in lines("accounts")]
    return {
        "ended": ended,
        "orders": lines("orders"),
        "accounts": accounts,
        "served": (lines("served") or [[]])[0],
    }


def main(plan_file: str, found_file: str) -> None:
    plan = json.loads(Path(plan_file).read_text())
    folder = Path(os.environ["MOPE_WATCH"])
    model = Path(plan["model"])
    make_model(model)
    if plan.get("http"):
        with served(plan, model, plan["http"]) as url:
            found = asyncio.run(asyncio.wait_for(play_http(plan, url), LIMIT_S))
    else:
        engine = InProcess(plan, model)
        try:
            loop = asyncio.get_event_loop()
            found = loop.run_until_complete(asyncio.wait_for(engine.play(plan), LIMIT_S))
        finally:
            engine.close()
    Path(found_file).write_text(json.dumps({**found, **watched(folder)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
