"""Real HTTP: a client, our proxy, a tiny OpenAI-compatible server behind it; streaming throughout."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mope.server import ServeConfig, Service
from mope.serving_adapters.asgi import MiddlewareConfig
from mope.serving_adapters.gate import GateConfig
from mope.serving_adapters.settings import Settings
from mope.types import Request

SPEC = importlib.util.spec_from_file_location("fake_openai", Path(__file__).with_name("fake_openai.py"))
assert SPEC is not None
assert SPEC.loader is not None
fake_openai = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fake_openai)


class World:
    """Client, proxy, server behind."""

    def __init__(self, client: httpx2.AsyncClient, service: Service, behind: Any) -> None:
        self.client, self.service, self.behind = client, service, behind

    async def complete(self, user: str, stream: bool = True, **more: Any) -> tuple[int, str]:
        body = {"model": "tiny", "prompt": "w1 w2", "user": user, "stream": stream, "max_tokens": 4, **more}
        response = await self.client.post("/v1/completions", json=body)
        return response.status_code, response.text

    def told(self, tenant: str) -> Any:
        door: Any = self.service.door
        controller = door.tagger.controller if self.service.config.tags else door.controller
        return next(one for one in controller.scheduler.metrics().clients if one.client == tenant)


@asynccontextmanager
async def worlds(**settings: Any) -> AsyncIterator[World]:
    behind = fake_openai.FakeOpenAI()
    async with fake_openai.listening(behind) as upstream:
        service = Service(ServeConfig(upstream, settings=Settings("vtc:forecast"), **settings))
        async with (
            fake_openai.listening(service) as url,
            httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield World(client, service, behind)


def run(world: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(world, 30))


def test_streams_and_answers_pass_unchanged_and_are_counted() -> None:
    async def world() -> None:
        async with worlds() as here:
            status, text = await here.complete("a", max_tokens=3)
            lines = [line for line in text.split("\n") if line]
            assert (status, len(lines), lines[-1]) == (200, 4, "data: [DONE]")
            assert json.loads(lines[1][5:])["choices"][0]["delta"]["content"] == "w1 "
            assert "usage" not in text
            status, text = await here.complete("b", stream=False, max_tokens=5)
            assert json.loads(text)["choices"][0]["text"] == "w0 w1 w2 w3 w4"
            assert here.behind.bodies[0]["stream_options"] == {"include_usage": True}
            _, text = await here.complete("c", max_tokens=2, stream_options={"include_usage": True})
            assert '"completion_tokens": 2' in text
            assert (here.told("a").output_tokens, here.told("a").prompt_tokens) == (3, 7)
            assert (here.told("b").output_tokens, here.told("b").prompt_tokens) == (5, 7)
            assert (here.told("c").output_tokens, here.told("c").prompt_tokens) == (2, 7)
            assert here.behind.headers[0]["accept-encoding"] == "identity"
            models = await here.client.get("/v1/models?limit=1")
            assert models.json() == {"data": [{"id": "tiny"}], "query": "limit=1"}

    run(world())


def test_tenants_come_from_header_then_hashed_key_then_user() -> None:
    async def world() -> None:
        async with worlds() as here:
            body = {"prompt": "x", "user": "u", "max_tokens": 1}
            headers = {"x-tenant-id": "named", "authorization": "Bearer sk-secret"}
            await here.client.post("/v1/completions", json=body, headers=headers)
            headers.pop("x-tenant-id")
            await here.client.post("/v1/completions", json=body, headers=headers)
            await here.client.post("/v1/completions", json=body)
            await here.client.post("/v1/completions", json={"prompt": "x"})
            text = (await here.client.get("/metrics")).text
            names = [one.client for one in here.service.door.controller.scheduler.metrics().clients]  # type: ignore[attr-defined]
            assert [name.split("-")[0] for name in names] == ["named", "key", "u", "default"]
            assert "secret" not in text

    run(world())


def test_a_gate_of_two_lets_the_light_tenant_in_between() -> None:
    async def world() -> None:
        async with worlds(gate=GateConfig(slots=2)) as here:
            here.behind.go.clear()
            tasks = []
            for number in range(8):
                tasks.append(asyncio.ensure_future(here.complete("heavy", max_tokens=4)))
                while number < 2 and here.behind.running <= number:
                    await asyncio.sleep(0.002)
            gate: Any = here.service.door
            while gate.waiting < 6:
                await asyncio.sleep(0.002)
            tasks += [asyncio.ensure_future(here.complete("light", max_tokens=4)) for _ in range(2)]
            while gate.waiting < 8:
                await asyncio.sleep(0.002)
            here.behind.go.set()
            assert {status for status, _ in await asyncio.gather(*tasks)} == {200}
            assert here.behind.most == 2
            # h h run; light comes in at their level; behind heavy where they tie, and then before it
            assert here.behind.order.index("light") <= 3
            assert [n for n, user in enumerate(here.behind.order) if user == "light"][1] <= 6
            assert (gate.waiting, gate.running) == (0, 0)

    run(world())


def test_a_full_gate_says_when_to_come_again() -> None:
    async def world() -> None:
        async with worlds(gate=GateConfig(slots=1, max_waiting=1)) as here:
            here.behind.go.clear()
            first = asyncio.ensure_future(here.complete("a"))
            while not here.behind.running:
                await asyncio.sleep(0.002)
            second = asyncio.ensure_future(here.complete("a"))
            gate: Any = here.service.door
            while gate.waiting < 1:
                await asyncio.sleep(0.002)
            body = {"prompt": "x", "user": "a"}
            response = await here.client.post("/v1/completions", json=body)
            assert response.status_code == 429
            assert 1 <= int(response.headers["retry-after"]) <= 60
            assert response.json()["error"]["type"] == "rate_limit_error"
            here.behind.go.set()
            assert [status for status, _ in await asyncio.gather(first, second)] == [200, 200]

    run(world())


def test_clients_that_go_away_free_their_place_waiting_or_served() -> None:
    async def world() -> None:
        async with worlds(gate=GateConfig(slots=1)) as here:
            here.behind.pause_s = 0.005
            gate: Any = here.service.door
            served = asyncio.ensure_future(here.complete("served", max_tokens=100_000))
            while not here.behind.running:
                await asyncio.sleep(0.002)
            waits = asyncio.ensure_future(here.complete("waits"))
            while gate.waiting < 1:
                await asyncio.sleep(0.002)
            waits.cancel()
            while gate.waiting:
                await asyncio.sleep(0.002)
            served.cancel()
            while here.behind.running or gate.running:
                await asyncio.sleep(0.002)
            assert here.behind.cut == ["served"]
            status, _ = await here.complete("next")
            assert status == 200
            assert here.behind.order == ["served", "next"]
            assert not gate.scheduler.jobs

    run(world())


def test_what_the_server_refuses_is_not_charged_and_comes_back_as_it_is() -> None:
    async def world() -> None:
        async with worlds() as here:
            status, text = await here.complete("a", model="missing")
            assert (status, json.loads(text)) == (404, {"error": {"message": "no such model"}})
            assert (here.told("a").cancelled, here.told("a").user_counter) == (1, 0.0)

    run(world())


def test_an_upstream_that_is_not_there() -> None:
    async def world() -> None:
        service = Service(ServeConfig("http://127.0.0.1:9"))
        async with fake_openai.listening(service) as url, httpx2.AsyncClient(trust_env=False) as client:
            response = await client.post(f"{url}/v1/completions", json={"prompt": "x"})
            assert response.status_code == 502
            assert "ConnectError" in response.text
            assert (await client.get(f"{url}/healthz")).json() == {"status": "ok"}

    run(world())


def test_no_way_around_the_gate() -> None:
    async def world() -> None:
        async with worlds() as here:
            for path in ("//v1/completions", "/v1/./completions", "/v1/x/../completions", "/v1/completions/"):
                url = here.client.base_url.copy_with(raw_path=path.encode())
                await here.client.post(url, json={"prompt": "x", "user": "a"})
            assert here.told("a").admitted == 4

    run(world())


def test_tags_go_into_the_body_and_replace_the_clients_own() -> None:
    async def world() -> None:
        async with worlds(tags="sglang-high-first") as here:
            here.behind.go.clear()
            tasks = []
            for _ in range(3):
                tasks.append(asyncio.ensure_future(here.complete("a", priority=10**9, max_tokens=4)))
                while here.behind.running < len(tasks):
                    await asyncio.sleep(0.002)
            here.behind.go.set()
            await asyncio.gather(*tasks)
            assert [body["priority"] for body in here.behind.bodies] == [0, -9 * 1024, -18 * 1024]
            assert here.told("a").output_tokens == 12

    run(world())


def test_forecasts_and_tags_as_a_service() -> None:
    async def world() -> None:
        async with worlds() as here:

            async def tag(name: str, tenant: str) -> int:
                asked = {"id": name, "tenant": tenant, "prompt_tokens": 10, "max_tokens": 45}
                return int((await here.client.post("/tag", json=asked)).json()["priority"])

            assert [await tag(f"a{n}", "a") for n in range(3)] == [0, 102_400, 204_800]
            assert await tag("b0", "b") == 0
            report = {"id": "a0", "event": "finish", "output_tokens": 5}
            assert (await here.client.post("/tag/report", json=report)).json() == {"id": "a0", "open": 3}
            assert await tag("a3", "a") == 307_200 - 81_920
            for wrong in (b"[]", b"{", b'{"id": ""}', b'{"id": 7}'):
                assert (await here.client.post("/tag", content=wrong)).status_code == 400
            assert "mope_tags_open 4" in (await here.client.get("/tag/metrics")).text
            wrong_event = {"id": "a1", "event": "explode"}
            response = await here.client.post("/tag/report", json=wrong_event)
            assert "begin, progress, finish, cancel" in response.json()["error"]["message"]
            assert (await here.client.post("/forecast", json={"prompt": "Hi"})).json() == {"forecast": None}

    run(world())


def test_bodies_that_wait_are_bounded_together() -> None:
    async def world() -> None:
        async with worlds(middleware=MiddlewareConfig(max_held=3000)) as here:
            here.behind.go.clear()
            tasks = [asyncio.ensure_future(here.complete("a", prompt="x" * 1000)) for _ in range(2)]
            while len(here.behind.bodies) < 2:
                await asyncio.sleep(0.002)
            status, text = await here.complete("a", prompt="x" * 1000)
            assert (status, "bytes are waiting" in text) == (429, True)
            here.behind.go.set()
            assert [status for status, _ in await asyncio.gather(*tasks)] == [200, 200]
            assert (await here.complete("a", prompt="x" * 1000))[0] == 200

    run(world())


@pytest.fixture(scope="module")
def shipped() -> Any:
    from mope.forecast import Forecaster
    from mope.server import Foresight

    foresight = Foresight(Forecaster(), deadline_ms=10_000)
    yield foresight
    foresight.close()


@pytest.mark.parametrize("tags", ["", "vllm"])
def test_the_shipped_bundle_forecasts_for_the_door_and_for_whoever_asks(shipped: Any, tags: str) -> None:
    async def world() -> None:
        chat = {"messages": [{"role": "user", "content": "Write a long story about a lighthouse."}]}
        expected = shipped.forecaster.forecast(Request.from_messages(chat["messages"])).length
        behind = fake_openai.FakeOpenAI()
        async with fake_openai.listening(behind) as upstream:
            patient = Settings(deadline_ms=10_000)
            config = ServeConfig(upstream, tags=tags, gate=GateConfig(slots=1), settings=patient)
            service = Service(config, shipped)
            client = httpx2.AsyncClient(transport=httpx2.ASGITransport(service), base_url="http://here")
            found = (await client.post("/forecast", json=chat)).json()["forecast"]
            assert found["tokens"] == pytest.approx(expected.tokens)
            assert found["low"] <= found["tokens"] <= found["high"]
            behind.go.clear()
            first = asyncio.ensure_future(client.post("/v1/chat/completions", json=chat))
            second = asyncio.ensure_future(client.post("/v1/chat/completions", json=chat))
            while len(behind.bodies) < (2 if tags else 1) or (not tags and not service.door.waiting):  # type: ignore[attr-defined]
                await asyncio.sleep(0.002)
            controller = service.tagger.controller if tags else service.door.controller  # type: ignore[attr-defined]
            job = list(controller.scheduler.jobs.values())[-1]
            while job.tokens is None or not job.foreseen:
                controller.step()
                await asyncio.sleep(0.002)
            assert job.tokens == pytest.approx(expected.tokens)
            behind.go.set()
            await asyncio.gather(first, second)
            await client.aclose()
            await service.forward.aclose()

    run(world())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"messages": 5}', b"[" * 100_000])
def test_odd_bodies_go_through_the_gate_all_the_same(body: bytes) -> None:
    async def world() -> None:
        async with worlds() as here:
            response = await here.client.post("/v1/completions", content=body)
            assert response.status_code == (200 if body.startswith(b'{"') else 400)
            assert here.told("default").admitted == 1

    run(world())


def test_a_body_that_is_too_large_is_refused_unread() -> None:
    async def world() -> None:
        async with worlds(middleware=MiddlewareConfig(max_body=100)) as here:
            status, text = await here.complete("a", prompt="x" * 200)
            assert (status, here.behind.bodies) == (413, [])
            assert "at most 100 bytes" in text

    run(world())
