"""An asyncio gate in front of anything that serves: who may start next, how many at once, who is turned away.

    gate = Gate(Controller(Settings(weights={"gold": 2.0})), GateConfig(slots=16))
    async with gate.slot(request) as slot:
        async for chunk in answer(request):
            slot.progress(slot.output_tokens + 1)

Nothing here waits for a forecast: it is asked for when a request arrives and counts if it comes while the request
waits. docs/gate.md says how to size the gate. One event loop owns it, and its controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, inf
from typing import Any

from mope.equinox import Refused
from mope.equinox.state import Account
from mope.errors import BadInput, ConfigError, MopeError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.door import Gone, Slot
from mope.types import Capacity, Request, Usage

RETRY_S = (1.0, 60.0)


class GateFull(Refused):
    """Too many requests wait; come again after `retry_after_s`."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(f"{reason}; come again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class GateConfig:
    """How much runs at once and how much may wait."""

    slots: int = field(default=32, metadata={"help": "requests that run at once"})
    tokens: float = field(default=inf, metadata={"help": "KV tokens that running requests may need together"})
    max_waiting: int = field(default=1024, metadata={"help": "requests that may wait"})
    wait_s: float | None = field(default=None, metadata={"help": "longest wait; then it is turned away"})

    def __post_init__(self) -> None:
        if self.slots < 1 or self.max_waiting < 0 or not self.tokens > 0:
            raise ConfigError(f"gate: {self}", "slots from 1, max_waiting from 0, tokens above 0")
        if self.wait_s is not None and not self.wait_s > 0:
            raise ConfigError(f"gate: wait_s={self.wait_s}", "above 0, or none")


Waiter = asyncio.Future[Slot | MopeError]


class Gate:
    """Admission by `FairScheduler`; every slot is given back, however its request ends.

    Where `max_waiting` wait, the newest request of the tenant with most waiting (by weight) is turned away, which
    may be the one that arrives: a flood refuses itself.
    """

    def __init__(self, controller: Controller | None = None, config: GateConfig | None = None) -> None:
        self.controller = controller or Controller()
        self.scheduler = self.controller.scheduler
        self.config = config or GateConfig()
        self.refused = 0
        self._waiting: dict[str, Waiter] = {}
        self._running: dict[str, Slot] = {}
        self._number = 0
        self._held_s = RETRY_S[0]  # running mean of what a slot is held for

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @asynccontextmanager
    async def slot(self, request: Request, gone: asyncio.Future[Any] | None = None) -> AsyncIterator[Slot]:
        """Wait for a slot and hold it. The request's own id is not used: any two requests may share one.

        Raises `GateFull` when it is turned away, `BadInput` where it could never fit, `Gone` where `gone` is done
        while it waits. Leaving with an exception,
        a cancellation among them, charges what `progress` told; leaving without, what `finish` or `progress` did.
        """
        slot = await self._enter(request, gone)
        whole = False
        try:
            yield slot
            whole = not slot.failed
        finally:
            self._leave(slot, whole)

    async def _enter(self, request: Request, gone: asyncio.Future[Any] | None) -> Slot:
        name = self._submit(request)
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiting[name] = waiter
        timer = self._start_timer(name)
        leave = partial(self._turn_away, name, Gone("the client went away"))
        if gone is not None:
            gone.add_done_callback(leave)
        self._pump()
        if len(self._waiting) > self.config.max_waiting:
            self._shed(name)
        try:
            found = await waiter
        except asyncio.CancelledError:
            self._give_up(name)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if gone is not None:
                gone.remove_done_callback(leave)
        if isinstance(found, MopeError):
            raise found
        return found

    def _submit(self, request: Request) -> str:
        """Let the scheduler know of it; the id it is known by here."""
        controller = self.controller
        client = controller.tenant(request.client)
        controller.step()
        self._number += 1
        request = replace(request, id=str(self._number), client=client)
        self.scheduler.submit(request, controller.now)
        need = self.scheduler.jobs[request.id].prompt_tokens + 1
        if need > self.config.tokens:
            self.scheduler.cancel(request.id, controller.now)
            raise BadInput(f"a request of {need} tokens", f"at most {self.config.tokens:.0f}")
        if controller.advice is not None:
            controller.advice.ask(request)
        return request.id

    def _pump(self) -> None:
        """Start whoever may start."""
        controller = self.controller
        controller.step()
        while self._waiting and len(self._running) < self.config.slots:
            room = Capacity(self._free_tokens(), self.config.slots - len(self._running))
            request = self.scheduler.next(room, controller.now)
            if request is None:
                return
            waiter = self._waiting.pop(request.id)
            if waiter.done():  # cancelled a moment ago; its coroutine has not run since
                self.scheduler.cancel(request.id, controller.now)
                continue
            slot = self._running[request.id] = Slot(request, controller.now, self._progress)
            waiter.set_result(slot)

    def _free_tokens(self) -> float:
        if self.config.tokens == inf:
            return inf
        return self.config.tokens - sum(self.scheduler.reserved_tokens(name) for name in self._running)

    def _progress(self, slot: Slot) -> None:
        if slot.request.id in self._running:
            self.controller.step()
            self.scheduler.progress(slot.request.id, slot.output_tokens, self.controller.now)

    def _leave(self, slot: Slot, whole: bool) -> None:
        """Settle and give the slot back."""
        self.controller.step()
        now, name = self.controller.now, slot.request.id
        del self._running[name]
        self._held_s += (now - slot.begun_s - self._held_s) / 16
        if whole:
            usage = slot.usage or Usage(slot.output_tokens)
            self.scheduler.finish(name, usage, now)
            self.controller.ended(name, usage.output_tokens, usage.finish_reason)
        else:
            self.scheduler.cancel(name, now)
            self.controller.ended(name)
        self._pump()

    def _give_up(self, name: str) -> None:
        """The coroutine that waited was cancelled, perhaps when it had its slot already."""
        if name in self._running:
            self._leave(self._running[name], whole=False)
        elif self._waiting.pop(name, None) is not None:
            self.scheduler.cancel(name, self.controller.now)
            self._pump()  # it may have been the head that kept others from passing

    def _shed(self, arrived: str) -> None:
        """Turn away the newest request of the tenant that has most waiting; of equals, the one that arrived."""
        own = self.scheduler.jobs[arrived].account
        largest = max(self.scheduler.turns.accounts(), key=_backlog)
        account = largest if _backlog(largest) > _backlog(own) else own
        assert account.last is not None
        self._refuse(account.last.request.id, "too many requests are waiting")

    def _refuse(self, name: str, reason: str) -> None:
        if name in self._waiting:
            self.refused += 1
            self._turn_away(name, GateFull(reason, self._retry_after_s()))

    def _turn_away(self, name: str, error: MopeError, *_: object) -> None:
        """End the wait of a request, where it still waits."""
        waiter = self._waiting.pop(name, None)
        if waiter is None:
            return
        self.scheduler.cancel(name, self.controller.now)
        if not waiter.done():
            waiter.set_result(error)
        self._pump()

    def _start_timer(self, name: str) -> asyncio.TimerHandle | None:
        wait_s = self.config.wait_s
        if wait_s is None:
            return None
        loop = asyncio.get_running_loop()
        return loop.call_later(wait_s, self._refuse, name, f"it waited {wait_s:g} s")

    def _retry_after_s(self) -> float:
        rounds = (len(self._waiting) + 1) / self.config.slots
        return min(max(float(ceil(self._held_s * rounds)), RETRY_S[0]), RETRY_S[1])

    def metrics_text(self) -> str:
        """Prometheus text: the scheduler's numbers by tenant, then the gate's own."""
        own = {"slots": self.config.slots, "running": self.running, "waiting": self.waiting}
        own |= {"refused": self.refused}
        lines = [f"# TYPE mope_gate_{name} gauge\nmope_gate_{name} {value}\n" for name, value in own.items()]
        return self.controller.metrics_text() + "".join(lines)


def _backlog(account: Account) -> float:
    return account.waiting / account.weight
