"""What every engine says to the scheduler and gets back; no engine is imported here.

An adapter tells a `Controller` what happens (`step`, `arrive`, `admit`, `tokens`, `finish`, `abort`, `preempt`) and
asks it who is next (`pick`, or `order` where the engine sorts). Whatever goes wrong in here is counted and logged,
never raised: an engine that gets no answer serves in its own order.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from time import monotonic
from typing import Any

from mope.equinox import FairScheduler, Refused
from mope.equinox.leading import leading
from mope.serving_adapters.forecasts import Advice, as_forecast
from mope.serving_adapters.guard import guarded, nothing
from mope.serving_adapters.learning import Learner
from mope.serving_adapters.lumped import lumped_metrics, metrics_text
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tenants import Labels, clean_tenant, overflow
from mope.types import Capacity, Forecast, Request, Usage

log = logging.getLogger("mope.adapters")
ROOMY = Capacity(float("inf"), slots=2**31)
SWEEP_EVERY = 256  # arrivals beyond the limit of tenants


class Controller:
    """One `FairScheduler` for one engine, in the engine's words. One thread owns it.

    Time is `clock`, read once a step; by default what `settings.clock` says: the wall's, or the number of steps
    (the same on every rank of one engine). `advice` is asked for each arrival that brings no forecast.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: Callable[[], float] | None = None,
        advice: Advice | None = None,
    ) -> None:
        self.settings = settings or Settings()
        by_steps = clock is None and self.settings.clock == "steps"
        self._clock = self._by_steps if by_steps else clock or monotonic
        self.scheduler = FairScheduler(
            self.settings.policy,
            priors=self.settings.priors,
            weights=self.settings.weights,
            groups=self.settings.groups,
        )
        self.advice = advice
        self.learner = Learner() if advice is not None and self.settings.learn else None
        self.steps = 0
        self.now = self._clock()
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.labels = Labels(
            self.settings.metric_tenants, {*self.settings.weights, *self.settings.groups.values()}
        )

    def _by_steps(self) -> float:
        return self.steps * self.settings.step_s

    @property
    def selective(self) -> bool:
        """Whether the policy refuses requests (rpm): only for engines that can be told no."""
        return self.scheduler.policy.selective

    @property
    def metered(self) -> bool:
        """Whether the policy wants to know of each token as it comes (plain VTC), not only of surprises."""
        return self.scheduler.policy.metered

    @guarded(nothing)
    def step(self, now: float | None = None) -> None:
        """A new step of the engine begins, at `now` or at what the clock says; forecasts that came are taken in."""
        self.steps += 1
        self.now = self._clock() if now is None else now
        if self.advice is not None:
            for request_id, forecast in self.advice.take():
                self.advise(request_id, self._learned(request_id, forecast))

    def _learned(self, request_id: str, forecast: Forecast) -> Forecast:
        job = self.scheduler.jobs.get(request_id)
        if self.learner is None or job is None:
            return forecast
        return self.learner.correct(job.request, forecast)

    @guarded(nothing)
    def ended(self, request_id: str, output_tokens: int | None = None, reason: str = "stop") -> None:
        """Learn how long an answer was; without tokens, that nobody will know. `finish` and `abort` do it."""
        if self.learner is None:
            return
        if output_tokens is None:
            self.learner.forget(request_id)
        else:
            self.learner.finish(request_id, output_tokens, reason)

    def arrive(
        self,
        request_id: str,
        tenant: object,
        prompt_tokens: int,
        max_tokens: int | None = None,
        *,
        prompt: str | Callable[[], str] | None = None,
        forecast: object = None,
        weight: float | None = None,
    ) -> str:
        """A request has come and waits. Returns the name its account is kept under, empty where it was refused.

        `forecast` is what came with it (see `as_forecast`); `prompt`, text or what makes it, is for `advice`.
        `weight` must come from who runs the engine, never from a client.
        """
        name = self.tenant(tenant)
        return (
            name
            if self._arrive(request_id, name, prompt_tokens, max_tokens, prompt, forecast, weight)
            else ""
        )

    @guarded(lambda *_: True)
    def _arrive(
        self, request_id: str, name: str, prompt_tokens: int, max_tokens: int | None,
        prompt: str | Callable[[], str] | None, given: object, weight: float | None,
    ) -> bool:  # fmt: skip
        if request_id in self.scheduler.jobs:
            return True
        forecast = None if given is None else as_forecast(given)
        if given is not None:
            self.counts["given" if forecast else "given_garbage"] += 1
        if weight is not None and len(self.scheduler.accounts.weights) < self.settings.max_tenants:
            self.scheduler.set_weight(name, weight)
        request = Request("", request_id, name, prompt_tokens=prompt_tokens, max_tokens=max_tokens)
        try:
            self.scheduler.submit(request, self.now, forecast)
        except Refused:
            self.counts["refused"] += 1
            return False
        if forecast is None and self.advice is not None:
            self.advice.ask(request, prompt)
        return True

    def tenant(self, raw: object) -> str:
        """The name of the account that `raw` is charged to: clean, in its group, one of a bounded number."""
        name = clean_tenant(raw, self.settings.default_tenant)
        name = self.settings.groups.get(name, name)
        known = self.scheduler.accounts.by_name
        if name in known or len(known) < self.settings.max_tenants or name in self.settings.weights:
            return name
        self.counts["overflowed"] += 1
        if self.counts["overflowed"] % SWEEP_EVERY == 1:
            self._sweep()
        return overflow(name)

    @guarded(nothing)
    def _sweep(self) -> None:
        self.scheduler.sweep(self.now)

    @guarded(nothing)
    def advise(self, request_id: str, forecast: Forecast) -> None:
        """A forecast that came after its request; too late where that runs already."""
        job = self.scheduler.jobs.get(request_id)
        if job is None or not self.scheduler.advise(request_id, forecast, self.now):
            self.counts["advised_late"] += 1

    @guarded(nothing)
    def pick(self, among: Container[str] | None = None) -> str | None:
        """The tenant whose turn it is, of all or of those `among`; None where none of them waits."""
        turns = self.scheduler.turns
        first = turns.first()
        if first is None or among is None or first.name in among:
            return None if first is None else first.name
        walk = turns.in_order()
        name = next((account.name for account in walk if account.name in among), None)
        walk.close()
        return name

    @guarded(lambda request_ids: list(request_ids))
    def order(self, request_ids: Iterable[str]) -> list[str]:
        """These requests in the order they should start, as if each were charged in turn; charges nothing.

        Requests that are not known to wait come last, as they stood.
        """
        given = list(dict.fromkeys(request_ids))
        jobs = self.scheduler.jobs
        waiting = [one for one in given if (job := jobs.get(one)) is not None and not job.running]
        known = set(waiting)
        ordered = self.scheduler.order(waiting, ROOMY, self.now)
        return ordered + [one for one in given if one not in known]

    @guarded(lambda _: list[str]())
    def leading(self, count: int) -> list[str]:
        """The first `count` of all that waits in the order they should start, in time by `count`; charges nothing."""
        return leading(count, self.now, self.scheduler)

    @guarded(nothing)
    def tag(self, request_id: str) -> int | None:
        """Start-time-fair integer of a request that arrived: smaller sooner. None for an unknown id."""
        job = self.scheduler.jobs.get(request_id)
        return None if job is None else self.scheduler.tag(job.request, self.now)

    @guarded(nothing)
    def admit(self, request_id: str) -> None:
        """The engine starts a request: it is charged as foreseen."""
        if request_id in self.scheduler.jobs:
            self.scheduler.admit(request_id, self.now)

    @guarded(nothing)
    def put_back(self, request_id: str) -> None:
        """The engine took a request and did not run it after all: as if it had not been admitted."""
        if self._is_running(request_id):
            self.counts["put_back"] += 1
            self.scheduler.requeue(request_id, self.now)

    @guarded(nothing)
    def preempt(self, request_id: str) -> None:
        """A running request has to wait again, in front of its tenant's others; what was not served is refunded."""
        if self._is_running(request_id):
            self.counts["preempted"] += 1
            self.scheduler.requeue(request_id, self.now)

    @guarded(nothing)
    def tokens(self, request_id: str, output_tokens: int) -> None:
        """A running request has made so many output tokens so far."""
        if self._is_running(request_id):
            self.scheduler.progress(request_id, output_tokens, self.now)

    @guarded(nothing)
    def finish(
        self, request_id: str, output_tokens: int, reason: str = "stop", prompt_tokens: int | None = None
    ) -> None:
        """A request is done: its charge becomes that of what it was. `prompt_tokens`: what was really computed."""
        job = self.scheduler.jobs.get(request_id)
        if job is None:
            return
        if not job.admissions:  # the engine started it without saying so
            self.scheduler.admit(request_id, self.now)
        usage = Usage(output_tokens, prompt_tokens, finish_reason=reason)
        self.scheduler.finish(request_id, usage, self.now)
        self.ended(request_id, output_tokens, reason)

    @guarded(nothing)
    def abort(self, request_id: str) -> None:
        """A request will not go on; what `tokens` said was served stays charged."""
        if request_id in self.scheduler.jobs:
            self.scheduler.cancel(request_id, self.now)
            self.ended(request_id)

    def foreseen(self, request_id: str) -> float:
        """Output tokens a running request is charged for: `tokens` need not be told of fewer. 0 for unknown ids."""
        job = self.scheduler.jobs.get(request_id)
        return 0.0 if job is None or self.metered else job.counted

    def score(self, tenant: str) -> int:
        """What an account was served, larger for more, comparable between tenants; 0 for unknown ones."""
        account = self.scheduler.accounts.by_name.get(tenant)
        return 0 if account is None else account.score

    def _is_running(self, request_id: str) -> bool:
        job = self.scheduler.jobs.get(request_id)
        return job is not None and job.running

    def totals(self) -> dict[str, int]:
        """Counts of what was odd: forecasts, put back, preempted, overflowed names, failures by call."""
        found = dict(self.counts)
        if self.advice is not None:
            found |= {f"forecasts_{name}": count for name, count in self.advice.counts.items()}
        return found | {f"failures_{name}": count for name, count in self.failures.items()}

    @guarded(lambda: "")
    def metrics_text(self) -> str:
        """Prometheus text: per tenant with a label, the rest as one, then the totals."""
        return metrics_text(lumped_metrics(self.scheduler.metrics(), self.labels), self.totals())

    def snapshot(self) -> Mapping[str, Any]:
        """State as plain JSON values, for looking at; `FairScheduler.restore` takes its part `scheduler`."""
        return {"scheduler": self.scheduler.snapshot(), "steps": self.steps, "totals": self.totals()}

    def failed(self, call: str, error: Exception) -> None:
        """Count a failure of ours; the first of each call is logged whole."""
        self.failures[call] += 1
        if self.failures[call] == 1:
            log.error("fair scheduling: %s failed; the engine goes on", call, exc_info=error)
