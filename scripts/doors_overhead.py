"""What a tag, a pass through the gate and the middleware cost, in microseconds of processor time.

python scripts/doors_overhead.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from mope.serving_adapters.asgi import FairMiddleware
from mope.serving_adapters.gate import Gate, GateConfig
from mope.serving_adapters.tags import FairTagger
from mope.types import Forecast, Request, Usage

PASSES = 2000
CHUNKS = 64
BODY = json.dumps({"messages": [{"role": "user", "content": "word " * 200}], "stream": True}).encode()
FORECAST = Forecast.of_tokens(100)


def tags(tenants: int) -> float:
    """Seconds of a tag, its first token and its finish."""
    made = FairTagger()
    begin = time.process_time()
    for n in range(PASSES):
        made.tag(Request("", str(n), str(n % tenants), prompt_tokens=50), 0.0, FORECAST)
        made.begin(str(n), 0.0)
        made.finish(str(n), Usage(100), 0.0)
    return (time.process_time() - begin) / PASSES


async def gate(waiting: int) -> float:
    """Seconds of a pass while so many wait all the time, each of a tenant of its own."""
    made, passed = Gate(config=GateConfig(slots=1, max_waiting=10**6)), 0

    async def client(name: str) -> None:
        nonlocal passed
        while passed < PASSES:
            async with made.slot(Request("", client=name, prompt_tokens=50)) as slot:
                passed += 1
                slot.progress(100)
                await asyncio.sleep(0)

    begin = time.process_time()
    await asyncio.gather(*(client(str(n)) for n in range(waiting + 1)))
    return (time.process_time() - begin) / passed


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A server that makes 64 chunks at once."""
    await receive()
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(CHUNKS):
        data = b'data: {"id": "cmpl-1", "choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def streams(made: Callable[..., Awaitable[None]]) -> float:
    """Seconds of a streamed answer of 64 chunks."""
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        pass

    begin = time.process_time()
    for _ in range(PASSES // 10):
        messages = [{"type": "http.request", "body": BODY}]

        async def receive(left: list[Any] = messages) -> Any:
            return left.pop() if left else await never

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
        await made(scope, receive, send)
    return (time.process_time() - begin) / (PASSES // 10)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    door = FairMiddleware(app, Gate(config=GateConfig(slots=8)))
    cases: dict[str, Callable[[], float]] = {
        "tag, first token and finish, 1 tenant": lambda: tags(1),
        "tag, first token and finish, 1,000 tenants": lambda: tags(1000),
        **{
            f"a pass through the gate, {n:,} waiting": (lambda n=n: asyncio.run(gate(n)))  # type: ignore[misc]
            for n in (0, 100, 1000)
        },
        "a stream of 64 chunks, no middleware": lambda: asyncio.run(streams(app)),
        "a stream of 64 chunks through the middleware": lambda: asyncio.run(streams(door)),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            found[name].append(case() * 1e6)
    print("| | median of rounds, us | fastest round, us |\n|---|---|---|")
    for name, values in found.items():
        print(f"| {name} | {median(values):.0f} | {min(values):.0f} |")


if __name__ == "__main__":
    main()
