"""A toy engine: continuous batching in steps of one length. For tests, for docs/equinox.md, for trying a policy.

It reserves what the scheduler says a request needs, gives every running request one token a step, and preempts
the newest where reservations outgrow the pool. `mope.sim` is the simulator; this has no costs and no hardware.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from mope.equinox.scheduler import FairScheduler
from mope.types import Capacity, Forecast, Request, Usage

Foresee = Callable[[Request, int], Forecast | None]


def exact(request: Request, output_tokens: int) -> Forecast:
    """The forecast of an oracle."""
    return Forecast.of_tokens(output_tokens)


def nothing(request: Request, output_tokens: int) -> None:
    """No forecast."""


class ToyEngine:
    """Drives one `FairScheduler`.

    `pool` KV tokens and `slots` requests at once; a step takes `step_s`. `served[client]` is k_in n_in + k_out n_out
    of what was really done, token by token; `log` holds (step, event, request id).
    """

    def __init__(
        self,
        scheduler: FairScheduler,
        *,
        pool: int = 4096,
        slots: int = 64,
        step_s: float = 0.03,
        foresee: Foresee = exact,
        k_in: float = 1.0,
        k_out: float = 2.0,
    ) -> None:
        self.scheduler = scheduler
        self.pool, self.slots, self.step_s = pool, slots, step_s
        self.foresee, self.k_in, self.k_out = foresee, k_in, k_out
        self.report = True  # whether tokens are reported as they come
        self.requests: dict[str, Request] = {}
        self.truth: dict[str, int] = {}
        self.made: dict[str, int] = {}
        self.running: dict[str, Request] = {}
        self.served: defaultdict[str, float] = defaultdict(float)
        self.log: list[tuple[int, str, str]] = []
        self.step = 0

    @property
    def now(self) -> float:
        """Seconds since the first step."""
        return self.step * self.step_s

    def send(self, request: Request, output_tokens: int) -> None:
        """A client sends a request whose answer will be `output_tokens` long."""
        self.requests[request.id] = request
        self.truth[request.id] = output_tokens
        self.made[request.id] = 0
        self.scheduler.submit(request, self.now, self.foresee(request, output_tokens))
        self.log.append((self.step, "send", request.id))

    def free(self) -> Capacity:
        """What is not reserved."""
        held = sum(self.scheduler.reserved_tokens(running) for running in self.running)
        return Capacity(self.pool - held, self.slots - len(self.running))

    def tick(self) -> list[str]:
        """One step: admit, decode, finish. Ids that were admitted."""
        admitted = self._admit()
        self.step += 1
        for request in list(self.running.values()):
            self._decode(request)
        while self.free().kv_tokens < 0 and len(self.running) > 1:
            self.preempt(next(reversed(self.running)))
        return admitted

    def run(self, steps: int) -> None:
        """`tick` that many times."""
        for _ in range(steps):
            self.tick()

    def _admit(self) -> list[str]:
        admitted: list[str] = []
        while (request := self.scheduler.next(self.free(), self.now)) is not None:
            self.running[request.id] = request
            self.log.append((self.step, "admit", request.id))
            if not self.made[request.id]:
                self.served[request.client] += self.k_in * (request.prompt_tokens or 0)
            admitted.append(request.id)
        return admitted

    def _decode(self, request: Request) -> None:
        made = self.made[request.id] = self.made[request.id] + 1
        self.served[request.client] += self.k_out
        if made >= self.truth[request.id]:
            del self.running[request.id]
            self.scheduler.finish(request.id, Usage(made), self.now)
            self.log.append((self.step, "finish", request.id))
        elif self.report:
            self.scheduler.progress(request.id, made, self.now)

    def preempt(self, request_id: str) -> None:
        """Put a running request back."""
        del self.running[request_id]
        self.scheduler.requeue(request_id, self.now)
        self.log.append((self.step, "requeue", request_id))
