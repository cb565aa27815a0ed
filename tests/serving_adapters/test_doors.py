"""The door that gives tags, its forecasts, and doors set by the environment."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from mope.errors import ConfigError, MissingExtra
from mope.serving_adapters.asgi import door_from_environment
from mope.serving_adapters.base import Controller
from mope.serving_adapters.forecasts import Advice
from mope.serving_adapters.gate import Gate
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tag_door import Polled, TagDoor
from mope.serving_adapters.tags import FairTagger
from mope.types import Request


def door(foresees: Any = None) -> TagDoor:
    tagger = FairTagger("vllm", Controller(Settings("vtc:forecast")))
    return TagDoor(tagger, foresees, clock=lambda: 0.0) if foresees else TagDoor(tagger, clock=lambda: 0.0)


def ask(tokens: int, client: str = "a") -> Request:
    return Request(str(tokens), client=client, prompt_tokens=10)


async def priorities(made: TagDoor, *tokens: int) -> list[int]:
    """Tags of requests that are all open at once."""
    found: list[int] = []

    async def hold(left: tuple[int, ...]) -> None:
        if left:
            async with made.slot(ask(left[0])) as slot:
                found.append(int(slot.priority or 0) // 1024)
                await hold(left[1:])
                slot.progress(left[0])

    await hold(tokens)
    return found


def test_a_tag_waits_for_its_forecast_and_not_for_a_late_one() -> None:
    def predict(requests: list[Request]) -> list[float]:
        return [float(request.prompt) for request in requests]

    async def world() -> None:
        advice = Advice(predict, deadline_ms=10_000)
        made = door(Polled(advice, 10_000))
        assert await priorities(made, 45, 20, 5) == [0, 100, 150]
        assert len(made.tagger) == 0
        assert advice.counts["used"] == 3
        advice.close()

        class Never:
            def submit(self, request: Request, deadline_ms: float | None = None) -> Any:
                raise RuntimeError

        advice = Advice(Never(), deadline_ms=5)
        polled = Polled(advice, 5)
        assert await priorities(door(polled), 45, 20) == [0, 10 + 2 * 256]  # the prior
        assert polled._wanted == {}
        advice.close()

    asyncio.run(asyncio.wait_for(world(), 20))


def test_leaving_with_an_exception_takes_the_rest_back() -> None:
    async def world() -> None:
        made = door()
        with contextlib.suppress(ZeroDivisionError):
            async with made.slot(ask(1)) as slot:
                slot.progress(7)
                slot.progress(1 // 0)
        async with made.slot(ask(1, "b")) as slot:
            slot.fail()
        found = {one.client: one for one in made.tagger.scheduler.metrics().clients}
        assert (found["a"].user_counter, found["a"].cancelled) == (24, 1)
        assert (found["b"].user_counter, found["b"].cancelled) == (24, 1)  # lifted, nothing of its own
        assert "mope_tags_open 0" in made.metrics_text()

    asyncio.run(world())


def test_a_door_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOPE_GATE", "MOPE_TAGS", "MOPE_EQUINOX"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(door_from_environment(), Gate)
    monkeypatch.setenv("MOPE_GATE", "slots=7, max_waiting=9")
    monkeypatch.setenv("MOPE_EQUINOX", '{"policy": "vtc", "weights": {"gold": 2}}')
    made = door_from_environment()
    assert isinstance(made, Gate)
    assert (made.config.slots, made.config.max_waiting) == (7, 9)
    assert made.scheduler.policy.name == "vtc"
    assert made.scheduler.accounts.weights == {"gold": 2}
    monkeypatch.setenv("MOPE_TAGS", "sglang-high-first")
    tags = door_from_environment()
    assert isinstance(tags, TagDoor)
    assert tags.tagger.dialect.sign == -1
    monkeypatch.setenv("MOPE_TAGS", "triton")
    with pytest.raises(ConfigError, match="vllm, sglang"):
        door_from_environment()
    monkeypatch.delenv("MOPE_TAGS")
    monkeypatch.setenv("MOPE_GATE", "slot=7")
    with pytest.raises(ConfigError, match="slots, tokens"):
        door_from_environment()


def test_serve_says_what_is_wrong_before_it_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from mope import server
    from mope.cli import build_app

    started: list[Any] = []
    monkeypatch.setattr(server, "serve", started.append)

    def run(*words: str) -> BaseException | None:
        return (
            CliRunner().invoke(build_app(), ["serve", "--upstream", "http://localhost:9", *words]).exception
        )

    assert isinstance(run("--gate", "slot=3"), ConfigError)
    assert isinstance(run("--tags", "triton"), ConfigError)
    assert isinstance(run("--weight", "gold"), ConfigError)
    assert isinstance(run("--weight", "gold=0"), ConfigError)
    assert isinstance(run("--set", "policy=fair"), ConfigError)
    assert (
        run("--gate", "slots=3", "--weight", "a=b=2", "--tenant-from", "key, user", "--predictor", "none")
        is None
    )
    (config,) = started
    assert (config.gate.slots, config.settings.weights, config.settings.predictor) == (3, {"a=b": 2.0}, "")
    assert config.middleware.tenant_from == ("key", "user")


def test_without_the_extra_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from mope import extras
    from mope.serving_adapters.forward import Forward

    monkeypatch.setitem(extras.MODULES, "serve", ("no_such_module",))
    with pytest.raises(MissingExtra, match=r"mope-llm\[serve\]"):
        Forward("http://localhost:9")
    with pytest.raises(ConfigError, match="http://HOST:PORT"):
        Forward("localhost:9")
