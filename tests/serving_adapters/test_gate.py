"""The gate: nobody lost, no slot leaked, exact order, whatever is cancelled when."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from mope.equinox import Refused
from mope.errors import BadInput, ConfigError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.door import Slot
from mope.serving_adapters.forecasts import Advice
from mope.serving_adapters.gate import Gate, GateConfig, GateFull
from mope.serving_adapters.settings import Settings
from mope.types import Request, Usage


class Clock:
    """Time that only moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def gate(policy: str = "vtc:forecast", clock: Clock | None = None, **config: Any) -> Gate:
    return Gate(Controller(Settings(policy), clock=clock or Clock()), GateConfig(**config))


def ask(client: str, prompt_tokens: int = 10, max_tokens: int | None = None) -> Request:
    return Request("", client=client, prompt_tokens=prompt_tokens, max_tokens=max_tokens)


async def settle() -> None:
    """Let every coroutine go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(world: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(world, 20))


class World:
    """Requests that hold their slot until told; who began, in order."""

    def __init__(self, made: Gate) -> None:
        self.gate = made
        self.began: list[str] = []
        self.slots: dict[str, Slot] = {}
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def send(self, name: str, client: str, **request: Any) -> asyncio.Task[None]:
        self.ends[name] = asyncio.Event()
        task = self.tasks[name] = asyncio.ensure_future(self._hold(name, ask(client, **request)))
        return task

    async def _hold(self, name: str, request: Request) -> None:
        async with self.gate.slot(request) as slot:
            self.began.append(name)
            self.slots[name] = slot
            await self.ends[name].wait()

    async def end(self, name: str, output_tokens: int = 45) -> None:
        self.slots[name].progress(output_tokens)
        self.ends[name].set()
        await settle()


def test_the_light_tenant_goes_next_and_the_order_is_exact() -> None:
    async def world() -> None:
        here = World(gate(slots=2))
        for number in range(6):
            here.send(f"h{number}", "heavy", max_tokens=45)
        await settle()
        for number in range(3):
            here.send(f"l{number}", "light", max_tokens=45)
        await settle()
        assert here.began == ["h0", "h1"]
        while len(here.began) < 9 or here.gate.running:
            await here.end(next(name for name in here.began if not here.ends[name].is_set()))
        # heavy was charged twice; light came in at that level, behind it where they tie
        assert here.began == ["h0", "h1", "h2", "l0", "h3", "l1", "h4", "l2", "h5"]
        assert (here.gate.waiting, here.gate.running) == (0, 0)

    run(world())


def test_what_is_told_is_charged_and_a_failed_request_is_not() -> None:
    async def world() -> None:
        made = gate(slots=4)
        async with made.slot(ask("a")) as slot:
            slot.progress(30)
            slot.progress(20)  # late: nothing changes
        async with made.slot(ask("b")) as slot:
            slot.progress(30)
            slot.finish(Usage(50, prompt_tokens=11))
        async with made.slot(ask("c")) as slot:
            slot.fail()
        with contextlib.suppress(RuntimeError):
            async with made.slot(ask("d")) as slot:
                slot.progress(7)
                raise RuntimeError
        slot.progress(99)  # after the end: nothing
        found = {one.client: one for one in made.scheduler.metrics().clients}
        counters = {name: one.user_counter for name, one in found.items()}
        # Each comes alone and is lifted to the one that left last.
        assert counters == {"a": 70, "b": 70 + 111, "c": 181, "d": 181 + 24}
        assert [(one.finished, one.cancelled) for one in found.values()] == [(1, 0), (1, 0), (0, 1), (0, 1)]

    run(world())


def test_a_cancelled_waiter_leaves_and_a_cancelled_runner_makes_room() -> None:
    async def world() -> None:
        here = World(gate(slots=1))
        for name in ("a", "b", "c"):
            here.send(name, name)
        await settle()
        here.tasks["b"].cancel()
        await settle()
        assert (here.began, here.gate.waiting) == (["a"], 1)
        here.tasks["a"].cancel()
        await settle()
        assert here.began == ["a", "c"]
        await here.end("c")
        assert (here.gate.running, here.gate.waiting, len(here.gate.scheduler.jobs)) == (0, 0, 0)

    run(world())


def test_cancelled_between_the_gift_of_a_slot_and_the_next_turn_of_the_loop() -> None:
    async def world() -> None:
        here = World(gate(slots=1))
        for name in ("a", "b", "c"):
            here.send(name, name)
        await settle()
        here.slots["a"].progress(1)
        here.ends["a"].set()
        while here.gate._waiting.keys() & {"2"}:  # b has its slot now and does not know
            await asyncio.sleep(0)
        here.tasks["b"].cancel()
        await settle()
        assert here.began == ["a", "c"]
        here.tasks["c"].cancel()
        await settle()
        assert (here.gate.running, here.gate.waiting, len(here.gate.scheduler.jobs)) == (0, 0, 0)

    run(world())


def test_given_a_slot_while_its_cancellation_is_on_the_way() -> None:
    async def world() -> None:
        here = World(gate(slots=1))
        for name in ("a", "b", "c"):
            here.send(name, name)
        await settle()
        here.tasks["b"].cancel()  # its future is cancelled, its coroutine has not run
        here.gate._leave(here.gate._running["1"], whole=True)  # a slot comes free in this very moment
        await settle()
        assert here.began == ["a", "c"]

    run(world())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("policy", ["equinox", "vtc", "fcfs"])
def test_under_random_cancels_nobody_is_lost_and_no_slot_leaks(seed: int, policy: str) -> None:
    async def world() -> None:
        random_, made = random.Random(seed), gate(policy, slots=3, tokens=200, max_waiting=25)
        made.controller._clock = lambda: asyncio.get_running_loop().time()
        ends: dict[str, int] = dict.fromkeys(("done", "cancelled", "full", "broken"), 0)
        most = 0

        async def one() -> None:
            nonlocal most
            try:
                async with made.slot(ask(random_.choice("abcdef"), random_.randint(0, 60))) as slot:
                    most = max(most, made.running)
                    for n in range(random_.randint(0, 5)):
                        slot.progress(n * random_.randint(0, 9))
                        await asyncio.sleep(0)
                    if random_.random() < 0.1:
                        raise RuntimeError
            except asyncio.CancelledError:
                ends["cancelled"] += 1
                raise
            except GateFull:
                ends["full"] += 1
            except RuntimeError:
                ends["broken"] += 1
            else:
                ends["done"] += 1

        tasks = []
        for _ in range(400):
            tasks.append(asyncio.ensure_future(one()))
            if random_.random() < 0.5:
                random_.choice(tasks).cancel()
            if random_.random() < 0.6:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        never_begun = sum(task.cancelled() for task in tasks) - ends["cancelled"]
        assert sum(ends.values()) + never_begun == 400
        assert all(ends.values())
        assert most <= 3
        assert (made.running, made.waiting, len(made.scheduler.jobs), made.scheduler.running) == (0, 0, 0, 0)
        assert made.scheduler.growth_tokens == 0

    run(world())


def test_a_flood_refuses_itself_and_a_light_tenant_gets_in() -> None:
    async def world() -> None:
        here = World(gate(slots=1, max_waiting=4))
        for number in range(7):
            here.send(f"h{number}", "heavy", max_tokens=45)
        await settle()
        for name in ("h5", "h6"):
            with pytest.raises(GateFull, match=r"come again in \d+ s"):
                await here.tasks[name]
        here.send("l0", "light", max_tokens=45)
        await settle()
        with pytest.raises(GateFull) as caught:
            await here.tasks["h4"]  # the newest of the heavy tenant made room
        assert 1 <= caught.value.retry_after_s <= 60
        assert (here.gate.waiting, here.gate.refused) == (4, 3)
        await here.end("h0")
        await here.end(here.began[-1])
        assert here.began == ["h0", "h1", "l0"]  # light came at the level of heavy, and after it
        for task in here.tasks.values():
            task.cancel()
        await settle()

    run(world())


def test_without_a_queue_only_free_slots_are_given() -> None:
    async def world() -> None:
        here = World(gate(slots=1, max_waiting=0))
        here.send("a", "a")
        here.send("b", "b")
        await settle()
        assert here.began == ["a"]
        with pytest.raises(GateFull):
            await here.tasks["b"]
        await here.end("a")

    run(world())


def test_the_token_budget_holds_back_what_does_not_fit() -> None:
    async def world() -> None:
        here = World(gate(slots=8, tokens=100))
        here.send("a", "a", prompt_tokens=30, max_tokens=30)
        here.send("b", "b", prompt_tokens=30, max_tokens=30)  # 60 + 60 > 100
        here.send("c", "c", prompt_tokens=10, max_tokens=20)  # goes past b
        await settle()
        assert here.began == ["a", "c"]
        with pytest.raises(BadInput, match="101 tokens"):
            await here.send("d", "d", prompt_tokens=100)
        await here.end("c", 20)
        assert here.began == ["a", "c"]
        await here.end("a", 30)
        assert here.began == ["a", "c", "b"]
        await here.end("b", 30)

    run(world())


def test_a_cancelled_head_that_was_owed_the_room_lets_the_others_go() -> None:
    async def world() -> None:
        here = World(gate(slots=8, tokens=100))
        here.send("a", "a", prompt_tokens=30, max_tokens=30)
        here.send("large", "large", prompt_tokens=40, max_tokens=40)
        for number in range(17):  # sixteen may pass it
            here.send(f"s{number}", "small", prompt_tokens=10, max_tokens=5)
            await settle()
            if number < 16:
                await here.end(f"s{number}", 5)
        assert here.began[-1] == "s15"
        here.tasks["large"].cancel()
        await settle()
        assert here.began[-1] == "s16"
        await here.end("s16", 5)
        await here.end("a", 30)

    run(world())


def test_who_waits_too_long_is_turned_away() -> None:
    async def world() -> None:
        here = World(gate(slots=1, wait_s=0.01))
        here.send("a", "a")
        await settle()
        with pytest.raises(GateFull, match=r"waited 0\.01 s"):
            await here.send("b", "b")
        await here.end("a")
        assert (here.gate.running, here.gate.waiting) == (0, 0)

    run(world())


def test_a_policy_that_refuses_is_heard() -> None:
    async def world() -> None:
        made = gate("rpm:1")
        async with made.slot(ask("a")):
            with pytest.raises(Refused, match="1 requests"):
                async with made.slot(ask("a")):
                    pass
        assert (made.running, made.waiting) == (0, 0)

    run(world())


def test_a_forecast_that_comes_while_its_request_waits_decides() -> None:
    async def world() -> None:
        def predict(requests: list[Request]) -> list[float]:
            return [float(request.prompt) for request in requests]

        advice = Advice(predict, deadline_ms=10_000)
        made = Gate(Controller(Settings("vtc:forecast"), advice=advice, clock=Clock()), GateConfig(slots=1))
        began: list[str] = []

        async def one(client: str, tokens: int) -> None:
            async with made.slot(Request(str(tokens), client=client, prompt_tokens=10)) as slot:
                began.append(client)
                slot.progress(tokens)
                while advice.counts["used"] < 5:
                    made.controller.step()
                    await asyncio.sleep(0.001)

        await asyncio.gather(one("first", 1), one("a", 500), one("a", 500), one("b", 20), one("b", 20))
        assert began == ["first", "a", "b", "b", "a"]  # 10 + 2 x 20, twice, is less than one of a
        assert advice.counts["used"] == 5
        advice.close()

    run(world())


def test_a_predictor_that_raises_costs_nothing_but_the_forecast() -> None:
    async def world() -> None:
        def predict(requests: list[Request]) -> list[float]:
            raise RuntimeError

        advice = Advice(predict)
        made = Gate(Controller(Settings(), advice=advice), GateConfig(slots=1))

        async def one() -> None:
            async with made.slot(ask("a")):
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(20)))
        while advice.counts["failed"] + advice.counts["late"] < 20:
            await asyncio.sleep(0.001)
            made.controller.step()
        assert (made.running, made.waiting) == (0, 0)
        advice.close()

    run(world())


def test_wrong_sizes_are_refused() -> None:
    for wrong in ({"slots": 0}, {"max_waiting": -1}, {"tokens": 0}, {"wait_s": 0.0}):
        with pytest.raises(ConfigError, match="gate"):
            GateConfig(**wrong)  # type: ignore[arg-type]
