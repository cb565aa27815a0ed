"""What runs: jobs are started, charged as foreseen, charged anew, settled and closed."""

from __future__ import annotations

from mope.equinox import checks, lifts
from mope.equinox.advice import advise, running_mean
from mope.equinox.state import (
    ADMITTED,
    ERROR,
    FALLBACKS,
    FINISHED,
    LONGEST,
    OUTPUT,
    PROMPT,
    WAITED,
    Job,
)
from mope.equinox.waiting import Waiting
from mope.types import Usage


class Steps(Waiting):
    """The changes of what runs. `mope.equinox.scheduler.FairScheduler` is the door to it, with all checks."""

    def start(self, job: Job, now: float) -> None:
        """Admit a waiting job: charge it as foreseen."""
        account = job.account
        passed = self.passed if self.pin is job else self.ahead(account)
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
