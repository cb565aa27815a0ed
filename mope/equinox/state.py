"""What the scheduler holds: one `Job` for each open request, one `Account` for each client it owes fairness."""

from __future__ import annotations

from array import array
from typing import Any

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

    Believed of it (`mope.equinox.advice`): `tokens` of output, None until something is; `service_s` from its
    prefill to its last token, `rate` in output tokens per second, `util` share of the hardware in [0, 1],
    `reserve` KV tokens to keep for prompt and output; `foreseen` where `tokens` is from a forecast.

    `number` orders submissions. While waiting: links to its neighbours in the queue of its account, `head_s`
    when it came to the head, `stuck` where even an empty engine has no room for it. While running: `served`
    output tokens known of, `counted` output tokens its charge stands for, `user` and `resource` charged so far
    in grains. `waited_s` at the head of its queue, `queued_s` in the queue at all, `ran_s` before it was preempted.
    """

    __slots__ = (
        "account", "admissions", "admitted_s", "after", "before", "counted", "foreseen", "head_s", "lift", "number",
        "prompt_tokens", "queued_s", "ran_s", "rate", "request", "reserve", "resource", "running", "served",
        "service_s", "stuck", "submitted_s", "tag", "tokens", "user", "util", "waited_s",
    )  # fmt: skip

    def __init__(
        self, request: Request, account: Account, number: int, prompt_tokens: int, now: float
    ) -> None:
        self.request = request
        self.account = account
        self.number = number
        self.prompt_tokens = prompt_tokens
        self.submitted_s = self.head_s = now
        self.tokens: float | None = None
        self.service_s = self.rate = self.util = 0.0
        self.before: Job | None = None
        self.after: Job | None = None
        self.running = self.stuck = self.foreseen = False
        self.admissions = self.reserve = self.served = self.user = self.resource = 0
        self.counted = 0.0
        self.waited_s = self.queued_s = self.ran_s = self.admitted_s = 0.0
        self.lift: Lift | None = None
        self.tag: int | None = None


TALLY = (
    "admitted", "finished", "cancelled", "requeued", "refused", "fallbacks",
    "prompt_tokens", "output_tokens", "error_tokens", "waited_s", "waited_max_s",
)  # fmt: skip
ADMITTED, FINISHED, CANCELLED, REQUEUED, REFUSED, FALLBACKS, PROMPT, OUTPUT, ERROR, WAITED, LONGEST = range(
    11
)


def new_tally() -> array[float]:
    """What an account was given and how well it was foreseen, a number for each name of `TALLY`.

    For metrics, never for decisions. Packed, because a million accounts would have eleven objects each.
    """
    return array("d", bytes(8 * len(TALLY)))


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
        self.tally = new_tally()
