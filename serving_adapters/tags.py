"""Fair order without a plug-in: start-time-fair tags sent as the integer `priority` that stock engines sort by.

For gateways and clients. A tag is fixed when its request is sent; what a prediction missed is settled in the tags
of the same tenant that come later. docs/tags.md has the flags each engine needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mope.equinox import checks
from mope.equinox.state import Job
from mope.errors import ConfigError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.dialects import Dialect, dialect
from mope.types import Forecast, Request, Usage


@dataclass(frozen=True)
class TagConfig:
    """Size of the integers, and what is kept of requests nobody reports on."""

    bits: int = field(default=53, metadata={"help": "a priority lies within 2**bits; 53: exact in any JSON"})
    coarse: int = field(default=0, metadata={"help": "drop this many low bits; equal tags go by arrival"})
    open_limit: int = field(default=65_536, metadata={"help": "open requests kept; beyond, the oldest go"})
    expire_s: float = field(
        default=3600.0, metadata={"help": "a request nobody finished counts as foreseen after this"}
    )

    def __post_init__(self) -> None:
        if not (8 <= self.bits <= 63 and 0 <= self.coarse <= 40):
            raise ConfigError(f"tags: bits={self.bits}, coarse={self.coarse}", "8 to 63 bits, coarse 0 to 40")
        if self.open_limit < 1 or not self.expire_s > 0:
            raise ConfigError(f"tags: {self}", "open_limit from 1, expire_s above 0")


@dataclass(slots=True)
class Open:
    """A tagged request: what its tenant's next tag was moved by for it, and whether the engine has begun it."""

    job: Job
    priority: int
    foreseen: int
    tagged_s: float
    begun: bool = False


class FairTagger:
    """Priorities for the requests of many tenants in front of one engine, or of one pool behind one queue.

    Tag S = max(V, F): V is the smallest score of a tenant with something waiting, F what the tenant was charged
    and what its waiting requests are foreseen to cost (start-time fair queueing, Goyal et al., 1996). When a
    request begins, makes more than was foreseen, ends or is cancelled, F moves by the difference. Report
    `begin` (the first token) and `finish`; both are safe to repeat. `now` is seconds on any one clock. One
    owner, as for `FairScheduler`. Numbers start again at 0 whenever nothing is open; at the top of their range
    they stay there, so the engine falls back to the order of arrival.
    """

    def __init__(
        self,
        engine: Dialect | str = "vllm",
        controller: Controller | None = None,
        config: TagConfig | None = None,
    ) -> None:
        self.dialect = dialect(engine)
        self.controller = controller or Controller()
        self.scheduler = self.controller.scheduler
        self.config = config or TagConfig()
        self.expired = self.clamped = 0
        self._open: dict[str, Open] = {}
        self._base = 0

    def __len__(self) -> int:
        """Requests tagged and neither finished nor cancelled."""
        return len(self._open)

    def tag(self, request: Request, now: float, forecast: Forecast | None = None) -> int:
        """The `priority` to send with a request; the same again for the same id while it is open."""
        self._expire(now)
        known = self._open.get(request.id)
        if known is not None:
            return known.priority
        scheduler = self.scheduler
        request = replace(
            request,
            prompt="",
            client=self.controller.tenant(request.client),
            prompt_tokens=checks.prompt_tokens(request, forecast),
        )
        scheduler.submit(request, now, forecast)
        job = scheduler.jobs[request.id]
        foreseen = self._foreseen(job, now)
        tag = scheduler.tag(request, now) >> self.config.coarse
        if not self._open:
            self._base = tag
        priority = self.dialect.sign * self._bounded(tag - self._base)
        self._open[request.id] = Open(job, priority, foreseen, now)
        return priority

    def begin(self, request_id: str, now: float) -> None:
        """The engine has begun this request: its first token is there."""
        known = self._open.get(request_id)
        if known is None or known.begun:
            return
        before = self._score(known.job)
        self.scheduler.admit(request_id, now)
        known.begun = True
        self._move(known.job, self._score(known.job) - before - known.foreseen)

    def progress(self, request_id: str, output_tokens: int, now: float) -> None:
        """It has made `output_tokens` so far: what goes beyond the forecast counts at once."""
        self.begin(request_id, now)
        known = self._open.get(request_id)
        if known is not None:
            before = self._score(known.job)
            self.scheduler.progress(request_id, output_tokens, now)
            self._move(known.job, self._score(known.job) - before)

    def finish(self, request_id: str, usage: Usage, now: float) -> None:
        """It is done: later tags of its tenant stand on what it really was."""
        self.begin(request_id, now)
        known = self._open.pop(request_id, None)
        if known is not None:
            before = self._score(known.job)
            self.scheduler.finish(request_id, usage, now)
            self._move(known.job, self._score(known.job) - before)

    def cancel(self, request_id: str, now: float) -> None:
        """It was given up: later tags of its tenant take back what it did not get."""
        known = self._open.pop(request_id, None)
        if known is not None:
            before = self._score(known.job)
            self.scheduler.cancel(request_id, now)
            self._move(known.job, self._score(known.job) - before - (0 if known.begun else known.foreseen))

    def metrics_text(self) -> str:
        """Prometheus text: the scheduler's numbers by tenant, then the tagger's own."""
        own = {"open": len(self), "expired": self.expired, "clamped": self.clamped}
        lines = [f"# TYPE mope_tags_{name} gauge\nmope_tags_{name} {value}\n" for name, value in own.items()]
        return self.controller.metrics_text() + "".join(lines)

    def _expire(self, now: float) -> None:
        """Close what nobody reported on, as if it had been what was foreseen."""
        config = self.config
        while self._open:
            request_id, oldest = next(iter(self._open.items()))
            if len(self._open) < config.open_limit and now - oldest.tagged_s < config.expire_s:
                return
            self.begin(request_id, now)
            made = max(oldest.job.served, round(oldest.job.tokens or 0))
            self.finish(request_id, Usage(made), now)
            self.expired += 1

    def _score(self, job: Job) -> int:
        return self.scheduler.policy.score(job.account.user, job.account.resource, job)

    def _foreseen(self, job: Job, now: float) -> int:
        """What `start_tag` adds to the tenant's tail for this job."""
        user, resource = self.scheduler.foreseen(job, now)
        account, score = job.account, self.scheduler.policy.score
        return score(account.user + user, account.resource + resource, job) - self._score(job)

    def _move(self, job: Job, difference: int) -> None:
        if job.account.tail:  # 0 once the tenant is idle
            job.account.tail += difference

    def _bounded(self, value: int) -> int:
        most = (1 << self.config.bits) - 1
        if not 0 <= value <= most:
            self.clamped += 1
        return min(max(value, 0), most)


def tagged(body: dict[str, object], priority: int) -> dict[str, object]:
    """A request body of an OpenAI-compatible server with its `priority`; what the client asked for is replaced."""
    return {**body, "priority": priority}
