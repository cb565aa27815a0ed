"""What may happen to a request: it waits, starts, is charged anew, is settled, stops, is closed.

Each step keeps the four parts in agreement: the queue of its account, the counters and lifts, the KV
reservation, the order of turns.
"""

from __future__ import annotations

from math import ceil

from mope.equinox import checks, lifts, queue
from mope.equinox.accounts import Accounts
from mope.equinox.admission import Admission, Needs
from mope.equinox.advice import Advice, Priors, advise
from mope.equinox.policies.base import Charge, Policy, Service
from mope.equinox.recent import Recent
from mope.equinox.state import Account, Job
from mope.equinox.turns import Turns
from mope.types import Capacity, Usage

BEGIN = float("-inf")


class Steps:
    """State and its changes; nothing is checked here. `mope.equinox.scheduler.FairScheduler` is the door."""

    def __init__(self, policy: Policy, priors: Priors, admission: Admission, accounts: Accounts) -> None:
        self.policy = policy
        self.priors = priors
        self.admission = admission
        self.accounts = accounts
        self.jobs: dict[str, Job] = {}
        self.closed = Recent()
        self.running = 0
        self.number = 0
        self.now = BEGIN
        self.pin: Job | None = None
        self.pin_s = BEGIN
        self.passed: list[Account] = []  # whose heads the pinned request would go ahead of
        self.turns = Turns()
        self.needs = Needs()

    def enqueue(self, job: Job, now: float) -> None:
        """Put a new or preempted job in its queue; its account becomes active where it was not."""
        account, head = job.account, job.account.head
        if head is None:
            self.accounts.activate(account, self.turns.first())
            self.turns.active += 1
        queue.insert(account, job)
        if account.head is job:
            if head is not None:
                head.waited_s += now - head.head_s
            self.lead(job, now)
            self.rescore(account)

    def leave(self, job: Job, now: float) -> None:
        """Take a job out of its queue; the caller scores its account anew."""
        account = job.account
        was_head = account.head is job
        if was_head:
            job.waited_s += now - job.head_s
        queue.remove(job)
        if account.head is None:
            self.turns.active -= 1
            self.accounts.last_left = account
        elif was_head:
            self.lead(account.head, now)

    def lead(self, job: Job, now: float) -> None:
        """`job` has become the head of its account."""
        job.head_s = now
        job.advice = self.believed(job)
        self.reserve(job)

    def reserve(self, job: Job) -> None:
        """Estimate the KV memory a waiting job needs."""
        job.reserve = self.reserve_of(job)
        if job.account.head is job:
            self.needs.push(job, self.turns.active)

    def reserve_of(self, job: Job) -> int:
        """KV tokens for its prompt and a quantile of its length, at least for one token more than it has."""
        return job.prompt_tokens + max(ceil(self.believed(job).reserve), job.served + 1)

    def believed(self, job: Job) -> Advice:
        """What is believed of a job now."""
        return job.advice or advise(job.request, None, job.account.mean, self.priors)

    def foreseen(self, job: Job, now: float) -> Charge:
        """The charge of a waiting job if it were admitted now."""
        advice, account = self.believed(job), job.account
        head_s = job.waited_s + (now - job.head_s if account.head is job else 0.0)
        tokens = max(self.policy.expected_tokens(advice, account.mean), job.served)
        queued_s = now - job.submitted_s - job.ran_s
        service = Service(
            job.prompt_tokens, tokens, head_s, queued_s, advice.service_s, advice.rate, advice.util
        )
        return self.policy.charge(service, account.weight)

    def rescore(self, account: Account) -> None:
        """Bring the score of an account, and its turn, in line with its counters and head."""
        head = account.head
        if head is not None:
            account.score = self.policy.score(account.user, account.resource, head)
            self.turns.touch(account)

    def pick(self, capacity: Capacity, now: float) -> Job | None:
        """The pinned job where it still stands, else the first that fits; notes whom it would go ahead of."""
        job, alone = self.pin, not self.running
        pinned = job is not None and self.pin_s == now and job.account.head is job
        if pinned and job is not None and self.admission.fits(job, job.reserve, capacity, alone):
            return job
        self.passed = []
        account = self.turns.first()
        head = None if account is None else account.head
        if head is not None and not self.admission.fits(head, head.reserve, capacity, alone):
            head = self._pass(head, capacity, now)
        self.pin, self.pin_s = head, now
        return head

    def _pass(self, first: Job, capacity: Capacity, now: float) -> Job | None:
        """The first head that fits, in the order of turns, up to one that may not be passed any more."""
        admission, alone = self.admission, not self.running
        if capacity.slots < 1 or (not alone and admission.holds(first, now)):
            return None
        if not alone and self.needs.least(self.turns.accounts) > capacity.kv_tokens:
            return None
        walk = self.turns.in_order()
        found = None
        for account in walk:
            head = account.head
            assert head is not None
            if admission.fits(head, head.reserve, capacity, alone):
                found = head
                break
            head.stuck = alone and admission.never(head, capacity)
            if admission.holds(head, now):
                break
            self.passed.append(account)
        walk.close()
        return found

    def start(self, job: Job, now: float) -> None:
        """Admit a waiting job: charge it as foreseen."""
        account, passed = job.account, self._gone_ahead_of(job)
        advice = job.advice = self.believed(job)
        if account.head is not job:
            self.reserve(job)
        self.leave(job, now)
        job.queued_s = now - job.submitted_s - job.ran_s
        if not job.admissions:
            account.tally.start(job.queued_s, advice.source != "forecast")
        job.admissions += 1
        job.running, job.admitted_s, job.stuck = True, now, False
        self.running += 1
        lifts.begin(job)
        self.admission.hold(job)
        self._foresee(job, self.policy.expected_tokens(advice, account.mean), advice.service_s)
        account.score = self.policy.score(account.user, account.resource, account.head or job)
        if account.head is not None:
            self.turns.touch(account)
        if account.bypassed:
            self.admission.caught_up(account)
        for other in passed:
            self.admission.passed(other, account, now)

    def _gone_ahead_of(self, job: Job) -> list[Account]:
        """The accounts whose heads an admission of `job` passes; for an engine's own choice, only the first."""
        passed, self.passed = self.passed, []
        if self.pin is not job:
            first = self.turns.first()
            passed = [] if first is None or first is job.account else [first]
        self.pin = None
        return passed

    def outrun(self, job: Job, now: float) -> None:
        """Charge a running job for more than was foreseen."""
        ran_s = job.ran_s + now - job.admitted_s
        self._foresee(job, job.served, max(self.believed(job).service_s, ran_s))
        self.rescore(job.account)

    def _foresee(self, job: Job, output_tokens: float, service_s: float) -> None:
        advice = self.believed(job)
        job.counted = max(output_tokens, job.served)
        self._charge(job, service_s, advice.rate, advice.util)

    def settle(self, job: Job, usage: Usage | None, now: float) -> None:
        """Charge a job for what was served in place of what was foreseen; nothing for a run without output."""
        advice = self.believed(job)
        job.counted = job.served
        if usage is None and not job.served:
            lifts.apply(job, 0, 0)
            return
        service_s = job.ran_s + (now - job.admitted_s if job.running else 0.0)
        util, rate = advice.util, 0.0
        if usage is not None:
            service_s = checks.measured(usage.latency_s, service_s)
            util = min(checks.measured(usage.gpu_util, util), 1.0)
            rate = checks.measured(usage.tokens_per_s, 0.0)
        if not rate:
            rate = job.served / service_s if service_s else advice.rate
        self._charge(job, service_s, rate, util)

    def _charge(self, job: Job, service_s: float, rate: float, util: float) -> None:
        counted, head_s, queued_s = job.counted, job.waited_s, job.queued_s
        service = Service(job.prompt_tokens, counted, head_s, queued_s, service_s, rate, util)
        lifts.apply(job, *self.policy.charge(service, job.account.weight))

    def stop(self, job: Job, now: float) -> None:
        """A settled job runs no more."""
        self.admission.release(job)
        job.ran_s += now - job.admitted_s
        job.running = False
        self.running -= 1
        lifts.end(job)

    def close(self, job: Job, now: float) -> None:
        """A settled or waiting job is over."""
        account = job.account
        if self.pin is job:
            self.pin = None
        if job.running:
            self.stop(job, now)
        else:
            self.leave(job, now)
        self.rescore(account)
        account.tally.serve(job)
        del self.jobs[job.request.id]
        self.closed.add(job.request.id)
        if account.head is None and not account.running and self.accounts.rest(account):
            self.sweep(now)

    def sweep(self, now: float) -> None:
        """Drop the idle accounts that owe nothing and are owed nothing."""
        running = (job for job in self.jobs.values() if job.running)
        self.accounts.sweep(self.turns.accounts(), running, now, len(self.jobs))
