"""One made-up server: requests come, the scheduler says who is next, a loop steps the batch, a log is kept.

The same calls as an engine's adapter makes: submit, peek, admit, progress, finish, requeue. Progress is told
before every decision that could depend on it, not after every token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from mope.equinox import FairScheduler, Refused
from mope.sim.events import ARRIVAL, Events
from mope.sim.inside import charges_nothing, quiet_tokens
from mope.sim.log import Log
from mope.sim.sequence import Arrival, Sequence
from mope.types import Forecast, History, Request, Usage

NO_HISTORY = History()
NO_END = float("inf")
Foresee = Callable[[Sequence], "Forecast | None"]
Util = Callable[[Sequence], "float | None"]


class Loop(Protocol):
    """How an engine steps; see `mope.sim.loops`."""

    def too_large(self, seq: Sequence) -> str:
        """Why the engine can never serve a request; empty where it can."""

    def before(self, now: float, next_s: float) -> None:
        """A request is about to be queued at `now`; the one after it comes at `next_s`."""

    def queued(self, seq: Sequence, now: float, first: bool) -> None:
        """A request was queued, as the `first` of its client or behind others of it."""


class Simulation:
    """A run: everything that changes hangs on it. Events: arrivals here, steps in the loop."""

    def __init__(
        self,
        arrivals: Iterator[Arrival],
        scheduler: FairScheduler,
        foresee: Foresee,
        log: Log,
        *,
        util: Util | None = None,
        tells_cap: bool = False,
    ) -> None:
        self.scheduler, self.log, self.foresee, self.util = scheduler, log, foresee, util
        self.events = Events()
        self.loop: Loop | None = None
        self.waiting: dict[str, int] = {}  # queued requests by client
        self.queued = 0
        self.open: dict[str, Sequence] = {}
        self.count = 0
        self.deaf = charges_nothing(scheduler)
        self._tells_cap = tells_cap
        self._arrivals = arrivals
        self._next = next(arrivals, None)

    def __getstate__(self) -> dict[str, Any]:
        """All but the sources and sinks outside; see `attach`."""
        return {**vars(self), "scheduler": self.scheduler.snapshot(), "_arrivals": None, "log": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.scheduler = FairScheduler.restore(state["scheduler"])

    def attach(self, arrivals: Iterator[Arrival], log: Log) -> None:
        """Go on after a checkpoint: with the same arrivals from the beginning, and a log to go on in."""
        taken = self.count + (self._next is not None)
        self._arrivals = islice(arrivals, taken, None)
        self.log = log

    def start(self) -> None:
        """Let the first request come."""
        if self._next is not None:
            self.events.push(self._next.arrival_s, ARRIVAL, self)

    def run(self, events: int = 1 << 60) -> bool:
        """Let so many events happen; False once all requests are over."""
        return self.events.run(events)

    def happen(self, now: float, number: int) -> None:
        """The next request arrives."""
        arrival = self._next
        assert arrival is not None
        assert self.loop is not None
        following = self._next = next(self._arrivals, None)
        if following is not None:
            self.events.push(following.arrival_s, ARRIVAL, self)
        self.count += 1
        seq = Sequence(self.count, arrival)
        reason = self.loop.too_large(seq)
        if reason:
            self.log.write(seq, now, reason)
            return
        first = not self.waiting.get(seq.client)
        next_s = NO_END if following is None else following.arrival_s
        if self.queued and not first:
            self.loop.before(now, next_s)
        else:
            self.loop.before(now, now)
        if self._submit(seq, now):
            self._queue(seq)
            self.loop.queued(seq, now, first)

    def _submit(self, seq: Sequence, now: float) -> bool:
        cap = seq.declared if self._tells_cap else None
        request = Request("", seq.id, seq.client, NO_HISTORY, seq.prompt, cap, None, now)
        try:
            self.scheduler.submit(request, now, self.foresee(seq))
        except Refused:
            self.log.write(seq, now, "refused by the policy")
            return False
        self.open[seq.id] = seq
        return True

    def _queue(self, seq: Sequence) -> None:
        self.queued += 1
        self.waiting[seq.client] = self.waiting.get(seq.client, 0) + 1

    def admit(self, request_id: str, now: float) -> Sequence:
        """Start a queued request."""
        self.scheduler.admit(request_id, now)
        return self.admitted(request_id, now)

    def admitted(self, request_id: str, now: float) -> Sequence:
        """Note that the scheduler has admitted a request."""
        seq = self.open[request_id]
        self.queued -= 1
        left = self.waiting[seq.client] - 1
        if left:
            self.waiting[seq.client] = left
        else:
            del self.waiting[seq.client]
        if seq.admitted_s != seq.admitted_s:
            seq.admitted_s = now
        return seq

    def tell(self, seq: Sequence, made: int, now: float) -> None:
        """Let the scheduler know how many output tokens a running request has."""
        if made > seq.told:
            seq.told = made
            self.scheduler.progress(seq.id, made, now)

    def quiet(self, seq: Sequence) -> float:
        """Output tokens up to which the progress of an admitted request moves no counter: it is charged for them."""
        return NO_END if self.deaf else quiet_tokens(self.scheduler, seq.id)

    def requeue(self, seq: Sequence, now: float) -> None:
        """A running request is preempted."""
        self.tell(seq, seq.made, now)
        seq.preempted += 1
        self.scheduler.requeue(seq.id, now)
        self._queue(seq)

    def finish(self, seq: Sequence, now: float) -> None:
        """A request has all its tokens."""
        service_s = now - seq.admitted_s
        rate = seq.made / service_s if service_s > 0 else None
        util = None if self.util is None else self.util(seq)
        usage = Usage(seq.made, seq.prompt, seq.first_s - seq.admitted_s, service_s, rate, util)
        self.scheduler.finish(seq.id, usage, now)
        del self.open[seq.id]
        self.log.write(seq, now)
