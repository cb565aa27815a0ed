"""Names from outside: a megabyte long, with control characters, 100,000 of them in a minute."""

from __future__ import annotations

import asyncio
import json
import re
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.serving_adapters.asgi import FairMiddleware, MiddlewareConfig
from mope.serving_adapters.base import Controller
from mope.serving_adapters.gate import Gate, GateConfig
from mope.serving_adapters.http_parts import plain_path, tenant_of
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tag_door import TagDoor
from mope.serving_adapters.tags import FairTagger, TagConfig
from mope.serving_adapters.wire import Meter, read_request
from mope.types import Request, Usage

NAMES = 100_000
LINE = re.compile(
    r"# TYPE [a-z_:]+ (gauge|counter)"
    r'|[a-z_:]+(\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"\})? [-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|inf|nan)'
)
UGLY = ["x" * 2**20, 'a"b\\c\n} 1\nfake{x="', "\x00\x1b[31m\r\u2028", "\ud800", "é" * 5000, "", " ", "~" * 40]


def parseable(text: str) -> bool:
    """Every line is one of Prometheus' text format, in printable ASCII."""
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    bad = [line for line in lines if not (LINE.fullmatch(line) and line.isascii() and line.isprintable())]
    assert not bad, bad[:3]
    return True


def kept(controller: Controller) -> int:
    """Accounts, jobs and remembered ids of a controller."""
    scheduler = controller.scheduler
    return len(scheduler.accounts.by_name) + len(scheduler.accounts.idle) + len(scheduler.jobs)


def test_a_minute_of_new_names_through_the_gate() -> None:
    made = Gate(Controller(Settings(max_tenants=500)), GateConfig(slots=8))

    async def one(number: int) -> None:
        async with made.slot(Request("", client=f"tenant {number}\n", prompt_tokens=3)) as slot:
            slot.progress(2)

    async def world() -> None:
        for number in range(NAMES):
            await one(number)
            if number == NAMES * 97 // 100:
                tracemalloc.start()
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 1e6  # accounts come and go, their number does not grow

    asyncio.run(world())
    assert kept(made.controller) <= 2 * (500 + 64)
    assert (made.running, made.waiting) == (0, 0)
    assert parseable(made.metrics_text())
    assert len(made.metrics_text()) < 200_000


def test_a_minute_of_new_names_that_are_never_finished_through_the_tagger() -> None:
    made = FairTagger("vllm", Controller(Settings(max_tenants=500)), TagConfig(open_limit=1000))
    for number in range(NAMES):
        request = Request("p" * 200, id=f"r{number}", client=f"{number}\x00", prompt_tokens=3)
        made.tag(request, number * 60 / NAMES)
    assert len(made) == 1000
    assert kept(made.controller) <= 2 * (500 + 64) + 1000
    assert made.expired == NAMES - 1000
    assert all(job.request.prompt == "" for job in made.scheduler.jobs.values())
    assert parseable(made.metrics_text())


@pytest.mark.parametrize("name", UGLY, ids=range(len(UGLY)))
def test_an_ugly_name_is_one_tenant_with_a_short_name(name: str) -> None:
    made = Gate(Controller(Settings()), GateConfig(slots=8))
    tagger = FairTagger()

    async def world() -> None:
        for _ in range(5):
            async with made.slot(Request("", client=name, prompt_tokens=1)):
                pass

    asyncio.run(world())
    for number in range(5):
        tagger.tag(Request("", id=str(number), client=name, prompt_tokens=1), 0.0)
        tagger.finish(str(number), Usage(1), 0.0)
    for door in (made, tagger):
        (client,) = door.scheduler.metrics().clients
        assert client.admitted == 5
        assert len(client.client) <= 64
        assert parseable(door.metrics_text())


@pytest.mark.parametrize("door", ["gate", "tags"])
def test_bodies_full_of_ugly_names_through_the_middleware(door: str) -> None:
    made: Any = Gate() if door == "gate" else TagDoor()
    seen: list[bytes] = []
    headers_seen: list[dict[bytes, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers_seen.append(dict(scope["headers"]))
        seen.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"usage": {"completion_tokens": 3}}'})

    middleware = FairMiddleware(app, made, MiddlewareConfig())
    texts: list[bytes] = []

    async def ask(path: str, body: bytes, method: str = "POST") -> None:
        never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        messages = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            return messages.pop() if messages else await never

        async def send(message: Any) -> None:
            texts.append(message.get("body", b""))

        headers = [(b"content-length", str(len(body)).encode()), (b"x-tenant-id", b"")]
        headers += [(b"Accept-Encoding", b"gzip")]  # would hide the tokens
        await middleware({"type": "http", "method": method, "path": path, "headers": headers}, receive, send)

    async def world() -> None:
        for name in UGLY:
            body = json.dumps({"user": name, "prompt": "Hi", "max_tokens": 10**30, "n": -1}).encode()
            await ask("/v1/completions", body)
        await ask("/mope/metrics", b"", "GET")

    asyncio.run(world())
    assert len(seen) == len(UGLY)
    assert [int(one[b"content-length"]) for one in headers_seen] == [len(body) for body in seen]
    assert not any(b"Accept-Encoding" in one for one in headers_seen)
    assert parseable(texts[-1].decode("ascii"))
    controller = made.controller if door == "gate" else made.tagger.controller
    assert sum(one.output_tokens for one in controller.scheduler.metrics().clients) == 3 * len(UGLY)


@pytest.mark.parametrize("hide", [False, True])
def test_one_line_of_a_stream_may_be_endless(hide: bool) -> None:
    meter, passed = Meter(streamed=True, hide=hide), 0
    for _ in range(40):
        passed += len(meter.feed(b"data: " + b"x" * 2**20))
    event = b'\ndata: {"choices": [{"text": "w"}]}\n\n'
    passed += len(meter.feed(event, last=True))
    assert passed == 40 * (2**20 + 6) + len(event)
    assert len(meter._rest) == 0
    assert meter.tokens == 1


def test_what_counts_as_a_token_and_what_as_usage() -> None:
    meter = Meter(streamed=True)
    first = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    tool = {"choices": [{"delta": {"tool_calls": [{}]}}, {"delta": {"reasoning_content": "hm"}}]}
    many = {"choices": [{"delta": {"content": "four or five tokens in one"}}]}
    for value in (first, tool, many, {"type": "response.output_text.delta", "delta": "w"}, [1], None):
        meter.feed(f"data: {json.dumps(value)}\r\n\r\n".encode())
    assert meter.tokens == 2 + 6 + 1
    done = {"type": "response.completed", "response": {"usage": {"input_tokens": 9, "output_tokens": 2}}}
    whole = f"event: x\ndata: {json.dumps(done)}\n\n".encode()
    for place in range(len(whole)):
        meter.feed(whole[place : place + 1])
    assert meter.usage() == Usage(2, 9)
    assert Meter(streamed=False).usage() is None


@given(st.lists(st.integers(1, 40)), st.booleans())
def test_the_hidden_usage_leaves_no_trace_however_the_stream_is_cut(cuts: list[int], whole: bool) -> None:
    words = [f'data: {{"choices": [{{"index": 0, "text": "w{n}"}}], "usage": null}}\n\n' for n in range(5)]
    usage = 'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}\n\n'
    end = "data: [DONE]\n\n" if whole else "data: [DO"
    sent = "".join([": hello\n\n", *words, usage, end]).encode()
    meter, got, place = Meter(streamed=True, hide=True), b"", 0
    for cut in cuts:
        got += meter.feed(sent[place : place + cut])
        place += cut
    got += meter.feed(sent[place:], last=True)
    assert got.decode() == "".join([": hello\n\n", *words, end])
    assert meter.usage() == Usage(7, 3)


@pytest.mark.parametrize(
    ("body", "tokens", "most", "prompt"),
    [
        ({"prompt": [1, 2, 3]}, 3, None, ""),
        ({"prompt": [[1, 2], [3]], "max_tokens": 5, "n": 3}, 3, 15, ""),
        ({"prompt": ["four", "more"]}, 2, None, "four\nmore"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "four"}, {"x": 1}]}]}, 1, None, "four"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]}, 2, None, "a\nb"),
        ({"input": "four", "max_output_tokens": 7}, 1, 7, "four"),
        ({"prompt": 5, "max_tokens": True, "n": "x"}, 0, None, ""),
        ({"prompt": [None, {}, [[]], 1.5]}, 0, None, ""),
        ("text", 0, None, ""),
    ],
)  # fmt: skip
def test_bodies_are_read_leniently(body: object, tokens: int, most: int | None, prompt: str) -> None:
    found = read_request(body, "a")
    assert (found.prompt_tokens, found.max_tokens, found.prompt) == (tokens, most, prompt)


def test_a_huge_prompt_is_counted_whole_and_kept_in_part() -> None:
    text = "a" * 10**6 + "z"
    chat = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": text},
    ]
    for body in ({"prompt": text}, {"messages": chat}):
        found = read_request(body, "a")
        assert found.prompt_tokens is not None
        assert found.prompt_tokens >= 250_000
        assert len(found.prompt) == 2**16
        assert found.prompt.endswith("az")
        assert sum(map(len, found.history.prompts)) <= 2**16


def test_deep_nesting_is_read_without_recursion() -> None:
    deep: Any = "four"
    for _ in range(50_000):
        deep = [deep]
    assert read_request({"prompt": deep}, "a").prompt == "four"


def test_paths_are_read_as_a_server_may_read_them() -> None:
    ways = (
        "/v1/completions",
        "//v1/completions",
        "/v1/./completions",
        "/v1/x/../completions",
        "/v1/completions/",
    )
    assert {plain_path(path) for path in ways} == {"/v1/completions"}
    assert plain_path("/v1/completions/x") != "/v1/completions"


def test_keys_are_hashed_and_the_first_carrier_wins() -> None:
    headers = [(b"Authorization", b"Bearer sk-secret"), (b"X-Team", b"blue")]
    scope = {"headers": headers}
    assert tenant_of(scope, {}, ("header:x-team", "key")) == "blue"
    key = tenant_of(scope, {}, ("key", "header:x-team"))
    assert key.startswith("key-")
    assert "secret" not in key
    assert tenant_of({"headers": []}, {"user": 5, "model": "lora-7"}, ("key", "user", "model")) == "lora-7"
    assert tenant_of({"headers": []}, None, ("user",)) == ""
