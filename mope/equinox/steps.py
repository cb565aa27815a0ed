"""What may happen to a request: it waits, starts, is charged anew, is settled, stops, is closed.

Each step keeps the four parts in agreement: the queue of its account, the counters and lifts, the KV
reservation, the order of turns.
"""

from __future__ import annotations

from mope.equinox import checks, lifts, queue
from mope.equinox.accounts import Accounts
from mope.equinox.admission import Admission, Needs
from mope.equinox.advice import Priors, advise, running_mean
from mope.equinox.policies.base import Charge, Policy
from mope.equinox.recent import Recent
from mope.equinox.state import (
    ADMITTED,
    ERROR,
    FALLBACKS,
    FINISHED,
    LONGEST,
    OUTPUT,
    PROMPT,
    WAITED,
    Account,
    Job,
)
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
        account = job.account
        head = account.head
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
        if account.head is not job:
            queue.remove(job)
            return
        job.waited_s += now - job.head_s
        head = queue.pop(account)
        if head is None:
            self.turns.active -= 1
            self.accounts.last_left = account
            if account in self.passed:
                self.passed.remove(account)
        else:
            self.lead(head, now)

    def lead(self, job: Job, now: float) -> None:
        """`job` has become the head of its account."""
        job.head_s = now
        if not job.reserve:
            advise(job, None, self.priors)
        if self.needs.built:
            self.needs.push(job, self.turns.active)

    def trial(self, job: Job) -> Job:
        """A waiting job as it would be if it were the head: itself, or a copy that believes something."""
        if job.tokens is not None:
            return job
        copy = Job(job.request, job.account, job.number, job.prompt_tokens, job.submitted_s)
        advise(copy, None, self.priors)
        return copy

    def foreseen(self, job: Job, now: float) -> Charge:
        """The charge of a waiting job if it were admitted now."""
        account, copy = job.account, self.trial(job)
        assert copy.tokens is not None
        head_s = job.waited_s + (now - job.head_s if account.head is job else 0.0)
        tokens = max(self.policy.expected_tokens(copy.tokens, account.mean), job.served)
        queued_s = now - job.submitted_s - job.ran_s
        return self.policy.charge(
            account.weight, job.prompt_tokens, tokens, head_s, queued_s, copy.service_s, copy.rate, copy.util
        )

    def rescore(self, account: Account) -> None:
        """Bring the score of an account with a head, and its turn, in line with its counters and head."""
        head, entry = account.head, account.entry
        assert head is not None
        score = account.score = self.policy.score(account.user, account.resource, head)
        if entry is None or score < entry[0] or (score == entry[0] and head.number < entry[1]):
            self.turns.push(account)

    def pick(self, capacity: Capacity, now: float) -> Job | None:
        """The pinned job where it still stands, else the first that fits; notes whom it would go ahead of."""
        job, alone = self.pin, not self.running
        pinned = job is not None and self.pin_s == now and job.account.head is job
        if pinned and job is not None and self.admission.fits(job, job.reserve, capacity, alone):
            return job
        if self.passed:
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
            if alone:
                head.stuck = admission.never(head, capacity)
            if admission.holds(head, now):
                break
            self.passed.append(account)
        walk.close()
        return found

    def start(self, job: Job, now: float) -> None:
        """Admit a waiting job: charge it as foreseen."""
        account = job.account
        passed = self.passed if self.pin is job else self._ahead(account)
        self.pin = None
        if job.tokens is None:
            advise(job, None, self.priors)
        assert job.tokens is not None
        self.leave(job, now)
        job.queued_s = now - job.submitted_s - job.ran_s
        if not job.admissions:
            tally = account.tally
            tally[ADMITTED] += 1
            tally[WAITED] += job.queued_s
            if job.queued_s > tally[LONGEST]:
                tally[LONGEST] = job.queued_s
            if not job.foreseen:
                tally[FALLBACKS] += 1
        job.admissions += 1
        job.running, job.admitted_s, job.stuck = True, now, False
        self.running += 1
        account.running += 1
        self.admission.growth += job.reserve - job.prompt_tokens - job.served
        if account.lifts:
            lifts.begin(job)
        tokens = self.policy.expected_tokens(job.tokens, account.mean)
        job.counted = tokens if tokens > job.served else job.served
        self._charge(job, job.service_s, job.rate, job.util)
        if account.head is not None:
            self.rescore(account)
        else:
            account.score = self.policy.score(account.user, account.resource, job)
        if account.bypassed:
            self.admission.caught_up(account)
        if passed:
            self.passed = []
            for other in passed:
                self.admission.passed(other, account, now)

    def _ahead(self, account: Account) -> list[Account]:
        """Whose head an engine's own choice of `account` goes ahead of; only the first is counted."""
        first = self.turns.first()
        return [] if first is None or first is account else [first]

    def outrun(self, job: Job, now: float) -> None:
        """Charge a running job for more than was foreseen."""
        job.counted = job.served
        self._charge(job, max(job.service_s, job.ran_s + now - job.admitted_s), job.rate, job.util)
        if job.account.head is not None:
            self.rescore(job.account)

    def settle(self, job: Job, usage: Usage | None, now: float) -> None:
        """Take a job off the engine and charge what was served in place of what was foreseen.

        Without a usage, what was served is what is known of; a run without any output costs nothing.
        """
        if job.running:
            self.admission.growth -= job.reserve - job.prompt_tokens - job.served
            job.ran_s += now - job.admitted_s
        else:  # it finished all the same, after it was said to be preempted
            job.waited_s += now - job.head_s if job.account.head is job else 0.0
            job.head_s, job.queued_s = now, now - job.submitted_s - job.ran_s
        service_s, rate, util = job.ran_s, 0.0, job.util
        if usage is not None:
            self._learn(job, usage)
            if usage.latency_s is not None:
                service_s = checks.measured(usage.latency_s, service_s)
            if usage.gpu_util is not None:
                util = min(checks.measured(usage.gpu_util, util), 1.0)
            if usage.tokens_per_s is not None:
                rate = checks.measured(usage.tokens_per_s, 0.0)
        if not rate:
            rate = job.served / service_s if service_s else job.rate
        job.counted = job.served
        if usage is None and not job.served:
            lifts.apply(job, 0, 0, self.policy.metered)
        else:
            self._charge(job, service_s, rate, util)
        if job.running:
            job.running = False
            self.running -= 1
            job.account.running -= 1
            if job.account.lifts:
                lifts.end(job)

    def _learn(self, job: Job, usage: Usage) -> None:
        """Take what a finished job really was into the job, the client's mean and the tally."""
        account, served, longest = job.account, usage.output_tokens, self.priors.longest
        if job.request.max_tokens is not None or served > longest:
            served = min(served, checks.most_tokens(job.request, longest))
        job.served = served
        if usage.prompt_tokens is not None:
            job.prompt_tokens = usage.prompt_tokens
        account.mean = running_mean(account.mean, served, self.priors.keep)
        account.tally[FINISHED] += 1
        account.tally[ERROR] += abs((job.tokens or 0.0) - served)

    def _charge(self, job: Job, service_s: float, rate: float, util: float) -> None:
        account = job.account
        user, resource = self.policy.charge(
            account.weight, job.prompt_tokens, job.counted, job.waited_s, job.queued_s, service_s, rate, util
        )
        if account.lifts:
            lifts.apply(job, user, resource, self.policy.metered)
            return
        account.user += user - job.user
        account.resource += resource - job.resource
        job.user, job.resource = user, resource

    def close(self, job: Job, now: float) -> None:
        """A settled or a waiting job is over."""
        account, request_id = job.account, job.request.id
        if self.pin is job:
            self.pin = None
        if job.before is not None or account.head is job:
            self.leave(job, now)
        if account.head is not None:
            self.rescore(account)
        if job.served:
            account.tally[PROMPT] += job.prompt_tokens
            account.tally[OUTPUT] += job.served
        del self.jobs[request_id]
        self.closed.add(request_id)
        if account.head is None and not account.running and self.accounts.rest(account):
            self.sweep(now)

    def sweep(self, now: float) -> None:
        """Drop the idle accounts that owe nothing and are owed nothing."""
        self.jobs = dict(self.jobs)  # a dict only gives memory back when it is built anew
        self.accounts.sweep(self.turns.accounts(), self.jobs.values(), now)
