"""The one door: which request runs next, what it is charged, and what it really was.

It joins four parts that know nothing of each other: what waits (`queue`), what is owed (`lifts`, `accounts`),
what fits (`admission`), what goes next (`turns`, by the policy's score). One owner: calls from several
threads go through `LockedScheduler`. Time is an argument in seconds; one value of it is one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mope.equinox import checks, queue
from mope.equinox.accounts import Accounts
from mope.equinox.admission import Admission, AdmissionConfig
from mope.equinox.advice import Priors, advise
from mope.equinox.metrics import Metrics, measure
from mope.equinox.order import prospective, start_tag
from mope.equinox.policies.base import Policy, Refused
from mope.equinox.registry import make_policy
from mope.equinox.state import CANCELLED, REFUSED, REQUEUED, Account, Job
from mope.equinox.steps import Steps
from mope.errors import BadInput
from mope.types import Capacity, Forecast, Request, Usage

END = float("inf")


class FairScheduler(Steps):
    """Decides which client's request an engine should start next; the engine does the rest.

    `policy` is a `Policy` or a word for `make_policy`. `weights` and `groups` are by client name: clients of
    one group share one account and one weight. Every call names a request by its id; `admit`, `requeue`,
    `finish` and `cancel` for the second time change nothing. Raises `BadInput` on what cannot be true, before
    anything has changed. Time that goes backwards counts as standing still.
    """

    def __init__(
        self,
        policy: Policy | str = "equinox",
        *,
        admission: AdmissionConfig | None = None,
        priors: Priors | None = None,
        weights: Mapping[str, float] | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        policy = make_policy(policy) if isinstance(policy, str) else policy
        accounts = Accounts(policy, weights or {}, groups or {})
        super().__init__(policy, priors or Priors(), Admission(admission or AdmissionConfig()), accounts)

    def submit(self, request: Request, now: float, forecast: Forecast | None = None) -> None:
        """Queue a request behind its client's others. Raises `Refused` where the policy does not take it."""
        if self.now <= now < END:  # `_at`, without its call
            self.now = now
        else:
            now = self._at(now)
        prompt_tokens = checks.prompt_tokens(request, forecast)
        if request.id in self.jobs:
            raise BadInput(
                f"request id {request.id!r} is open already", "a new id", "cancel or finish it first"
            )
        account = self.accounts.of(request.client)
        if self.policy.selective:
            self._accept(account, now)
        self.number += 1
        job = Job(request, account, self.number, prompt_tokens, now)
        if forecast is not None:
            advise(job, forecast, self.priors)
        self.jobs[request.id] = job
        if account.head is None:
            self.enqueue(job, now)
        else:
            queue.insert(account, job)

    def advise(self, request_id: str, forecast: Forecast, now: float) -> bool:
        """Take a forecast that came after its request was submitted; False where it came too late to count."""
        self._at(now)
        job = self._job(request_id)
        if job is None or job.running:
            return False
        advise(job, forecast, self.priors)
        if job.account.head is job:
            self.lead(job, job.head_s)
            self.rescore(job.account)
        return True

    def peek(self, capacity: Capacity, now: float) -> Request | None:
        """The request to start next, which fits `capacity`; None where no head fits or one is owed the room.

        The same answer until it is admitted or cancelled, time moves on, or it does not fit any more.
        """
        job = self.pick(capacity, self._at(now))
        return None if job is None else job.request

    def admit(self, request_id: str, now: float) -> None:
        """The engine starts this request, the peeked one or its own choice: it is charged as foreseen."""
        now = self._at(now)
        job = self._job(request_id)
        if job is not None and not job.running:
            self.start(job, now)

    def next(self, capacity: Capacity, now: float) -> Request | None:
        """`peek` and `admit` in one."""
        if self.now <= now < END:
            self.now = now
        else:
            now = self._at(now)
        job = self.pick(capacity, now)
        if job is None:
            return None
        self.start(job, now)
        return job.request

    def order(self, request_ids: Iterable[str], capacity: Capacity, now: float) -> list[str]:
        """These waiting requests as `next` would start them one after the other, then those that do not fit.

        Charges nothing and counts no bypass. Raises `BadInput` on an id that is not waiting.
        """
        now = self._at(now)
        jobs = [self._waiting(request_id) for request_id in request_ids]
        return prospective(jobs, capacity, now, self)

    def tag(self, request: Request, now: float, forecast: Forecast | None = None) -> int:
        """Start-time-fair tag of a request: smaller sooner, for engines that only know an integer priority.

        Submits the request where that has not been done. The tag of a request never changes; charges nothing.
        """
        now = self._at(now)
        if request.id not in self.jobs:
            self.submit(request, now, forecast)
        job = self.jobs[request.id]
        if job.tag is None:
            job.tag = start_tag(job, self.turns.first(), now, self)
        return job.tag

    def progress(self, request_id: str, output_tokens: int, now: float) -> None:
        """A running request has made `output_tokens` so far. Fewer than before, or late: nothing changes."""
        now = self._at(now)
        checks.tokens("output_tokens", output_tokens)
        job = self._job(request_id)
        if job is None or not job.running:
            return
        most = checks.most_tokens(job.request, self.priors.longest)
        output_tokens = min(output_tokens, most)
        if output_tokens > job.served:
            self.admission.progress(job, output_tokens, most)
            if output_tokens > job.counted:
                self.outrun(job, now)

    def finish(self, request_id: str, usage: Usage, now: float) -> None:
        """The request is done: its charge becomes that of what it really was.

        `usage.latency_s` counts as `Forecast.latency_s` does, from the start of service; where it is missing,
        the time between admission and now. Output tokens beyond `max_tokens` are not charged.
        """
        if self.now <= now < END:
            self.now = now
        else:
            now = self._at(now)
        checks.usage(usage)
        job = self.jobs.get(request_id) or self._job(request_id)
        if job is None:
            return
        if not job.admissions:
            raise BadInput(f"request {request_id!r} was never admitted", "admit before finish")
        self.settle(job, usage, now)
        self.close(job, now)

    def cancel(self, request_id: str, now: float) -> None:
        """The client gave up or the engine did: what was served stays charged, the rest is refunded."""
        now = self._at(now)
        job = self._job(request_id)
        if job is None:
            return
        if job.running:
            self.settle(job, None, now)
        job.account.tally[CANCELLED] += 1
        self.close(job, now)

    def requeue(self, request_id: str, now: float) -> None:
        """Preempted: back to its client's head; what was not served is refunded, nothing is charged twice."""
        now = self._at(now)
        job = self._job(request_id)
        if job is None or not job.running:
            return
        self.settle(job, None, now)
        job.reserve = max(job.reserve, job.prompt_tokens + job.served + 1)
        job.account.tally[REQUEUED] += 1
        self.enqueue(job, now)
        self.rescore(job.account)

    def set_weight(self, client: str, weight: float) -> None:
        """Change a client's weight; it counts from the client's next charge or settlement."""
        self.accounts.set_weight(client, weight)

    def reserved_tokens(self, request_id: str) -> int:
        """KV tokens to keep for a request: prompt and a quantile of its length, more once that was outrun."""
        job = self._job(request_id)
        return 0 if job is None else self.trial(job).reserve

    @property
    def growth_tokens(self) -> int:
        """KV tokens the running requests are expected to add yet, for engines that report what is free now."""
        return self.admission.growth

    def metrics(self) -> Metrics:
        """Counters, queues, service, waits and prediction error of every client that is known now."""
        return measure(self)

    def snapshot(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        from mope.equinox.snapshot import dump

        return dump(self)

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any], policy: Policy | None = None) -> FairScheduler:
        """A scheduler that goes on exactly where `snapshot` was taken; `BadInput` where it is not whole.

        `policy` is needed where the policy in use is not known to `make_policy`.
        """
        from mope.equinox.snapshot import load

        return load(cls, snapshot, policy)

    def _accept(self, account: Account, now: float) -> None:
        try:
            self.policy.accept(account, now)
        except Refused:
            account.tally[REFUSED] += 1
            raise

    def _at(self, now: float) -> float:
        if not self.now <= now < END:
            now = checks.seconds(now, self.now)
        self.now = now
        return now

    def _job(self, request_id: str) -> Job | None:
        """The open job of an id; None where it was closed lately."""
        job = self.jobs.get(request_id)
        if job is None and request_id not in self.closed:
            raise BadInput(f"request id {request_id!r} is not known", "the id of a submitted request")
        return job

    def _waiting(self, request_id: str) -> Job:
        job = self.jobs.get(request_id)
        if job is None or job.running:
            raise BadInput(f"request id {request_id!r} is not waiting", "ids of waiting requests")
        return job
