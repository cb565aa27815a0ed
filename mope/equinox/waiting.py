"""What waits, and whose turn it is: jobs enter and leave the queues of their accounts, and one is picked.

Each change keeps the parts in agreement: queues, lifts, KV needs, the order of turns.
"""

from __future__ import annotations

from mope.equinox import queue
from mope.equinox.accounts import Accounts
from mope.equinox.admission import Admission, Needs
from mope.equinox.advice import Priors, advise
from mope.equinox.policies.base import Charge, Policy
from mope.equinox.recent import Recent
from mope.equinox.state import Account, Job
from mope.equinox.turns import Turns
from mope.types import Capacity

BEGIN = float("-inf")


class Waiting:
    """The state of a scheduler, and the changes of what waits in it. Nothing is checked here."""

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

    def ahead(self, account: Account) -> list[Account]:
        """Whose head an engine's own choice of `account` goes ahead of; only the first is counted."""
        first = self.turns.first()
        return [] if first is None or first is account else [first]
