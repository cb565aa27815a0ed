"""What the scheduler holds: one `Job` for each open request, one `Account` for each client it owes fairness."""

from __future__ import annotations

from typing import Any

from mope.equinox.advice import Advice
from mope.types import Request


class Lift:
    """What a late settlement may still move through one lift of the counters; see `mope.equinox.lifts`.

    `user` and `resource` are counter before the lift minus the level lifted to, in grains; `since` counts
    the running jobs admitted after this lift and before the next.
    """

    __slots__ = ("resource", "since", "user")

    def __init__(self, user: int, resource: int) -> None:
        self.user, self.resource, self.since = user, resource, 0


class Job:
    """A request from submit to finish or cancel. Times in seconds on the caller's clock.

    `number` orders submissions. While waiting: links to its neighbours in the queue of its account, `head_s`
    when it came to the head, `stuck` where even an empty engine has no room for it. While running: `served`
    output tokens known of, `counted` output tokens its charge stands for, `user` and `resource` charged so far
    in grains. `waited_s` at the head of its queue, `queued_s` in the queue at all, `ran_s` before it was preempted.
    """

    __slots__ = (
        "account", "admissions", "admitted_s", "advice", "after", "before", "counted", "head_s", "lift",
        "number", "prompt_tokens", "queued_s", "ran_s", "request", "reserve", "resource", "running", "served",
        "stuck", "submitted_s", "tag", "user", "waited_s",
    )  # fmt: skip

    def __init__(
        self, request: Request, account: Account, number: int, prompt_tokens: int, now: float
    ) -> None:
        self.request = request
        self.account = account
        self.number = number
        self.prompt_tokens = prompt_tokens
        self.submitted_s = self.head_s = now
        self.advice: Advice | None = None
        self.before: Job | None = None
        self.after: Job | None = None
        self.running = self.stuck = False
        self.admissions = self.reserve = self.served = self.user = self.resource = 0
        self.counted = 0.0
        self.waited_s = self.queued_s = self.ran_s = self.admitted_s = 0.0
        self.lift: Lift | None = None
        self.tag: int | None = None


class Tally:
    """What an account was given and how well it was foreseen; for metrics, never for decisions."""

    __slots__ = (
        "admitted", "cancelled", "error_tokens", "fallbacks", "finished", "output_tokens", "prompt_tokens",
        "refused", "requeued", "waited_max_s", "waited_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.admitted = self.finished = self.cancelled = self.requeued = self.refused = 0
        self.prompt_tokens = self.output_tokens = self.fallbacks = 0
        self.error_tokens = self.waited_s = self.waited_max_s = 0.0

    def start(self, waited_s: float, fallback: bool) -> None:
        """A request was admitted for the first time."""
        self.admitted += 1
        self.fallbacks += fallback
        self.waited_s += waited_s
        if waited_s > self.waited_max_s:
            self.waited_max_s = waited_s

    def serve(self, job: Job) -> None:
        """A request is over; its prompt was served where any output was."""
        if job.served:
            self.prompt_tokens += job.prompt_tokens
            self.output_tokens += job.served

    def add(self, other: Tally) -> None:
        """Take in another account's numbers."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.waited_max_s = max(self.waited_max_s - other.waited_max_s, other.waited_max_s)


class Account:
    """One client, or one group of client names, and what it was charged.

    `user` and `resource` are its two counters in grains, `score` the policy's view of them. `bypassed`
    counts how often others went ahead of its head since `bypassed_s`; it has caught up once its score
    reaches `bypass_level`. `tail` is the finish tag of its last tagged request, `extra` the policy's own.
    """

    __slots__ = (
        "bypass_level", "bypassed", "bypassed_s", "entry", "extra", "head", "last", "lifts", "mean", "name",
        "resource", "running", "score", "tail", "tally", "user", "waiting", "weight",
    )  # fmt: skip

    def __init__(self, name: str, weight: float) -> None:
        self.name = name
        self.weight = weight
        self.user = self.resource = self.score = 0
        self.head: Job | None = None
        self.last: Job | None = None
        self.waiting = self.running = 0
        self.lifts: list[Lift] | None = None
        self.entry: tuple[int, int, Account] | None = None
        self.bypassed = self.bypass_level = self.tail = 0
        self.bypassed_s = 0.0
        self.mean: float | None = None
        self.extra: Any = None
        self.tally = Tally()
