"""What fits: KV memory, slots and step tokens of the next request, who may go ahead, and how large a step may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import ceil, isfinite, isnan

from mope.equinox.state import Account, Job
from mope.errors import BadInput, ConfigError
from mope.types import Capacity


@dataclass(frozen=True)
class AdmissionConfig:
    """When a head that does not fit may be passed, and what a request needs of a step."""

    bypass_limit: int = field(
        default=16, metadata={"help": "times others may pass an account; 0: stop there"}
    )
    bypass_s: float = field(
        default=10.0, metadata={"help": "seconds during which others may pass an account"}
    )
    chunked: bool = field(default=True, metadata={"help": "a prompt may be prefilled over several steps"})
    outrun: float = field(
        default=1.5, metadata={"help": "memory for a length that outran its own: times this"}
    )

    def __post_init__(self) -> None:
        if self.bypass_limit < 0 or not (isfinite(self.bypass_s) and self.bypass_s >= 0):
            raise ConfigError(f"admission: {self}", "bypass_limit and bypass_s from 0")
        if not (isfinite(self.outrun) and self.outrun > 1):
            raise ConfigError(f"admission: outrun={self.outrun}", "a finite number above 1")


class Admission:
    """Fit, bypass and reservation.

    `growth` is KV tokens the running requests are expected to add yet: the sum of what each has reserved and
    does not hold. A running request holds its prompt and output, never more than its reservation.
    """

    def __init__(self, config: AdmissionConfig) -> None:
        self.config = config
        self.growth = 0

    def fits(self, job: Job, reserve: int, capacity: Capacity, alone: bool) -> bool:
        """Whether there is room for `job`, which needs `reserve` KV tokens.

        `alone`: nothing runs, so waiting brings no more room. Then what it holds at its first step is enough:
        a length foreseen too long must not block it forever.
        """
        need = job.prompt_tokens + job.served + 1 if alone else reserve
        chunk = 1 if self.config.chunked else job.prompt_tokens + job.served
        return need <= capacity.kv_tokens and capacity.slots >= 1 and chunk <= capacity.step_tokens

    def never(self, job: Job, capacity: Capacity) -> bool:
        """Whether `job` does not fit an engine in which nothing runs: then waiting for room is of no use."""
        return job.prompt_tokens + job.served + 1 > capacity.kv_tokens

    def late(self, count: int, since_s: float, now: float) -> bool:
        """Whether an account that others went ahead of `count` times, first at `since_s`, is owed the room."""
        config = self.config
        return count >= config.bypass_limit or (count > 0 and now - since_s >= config.bypass_s)

    def holds(self, head: Job, now: float) -> bool:
        """Whether a head that does not fit keeps those behind it from going ahead."""
        return not head.stuck and self.late(head.account.bypassed, head.account.bypassed_s, now)

    def passed(self, account: Account, by: Account, now: float) -> None:
        """Note that a request of `by` was admitted ahead of the head of `account`, which did not fit."""
        if not account.bypassed:
            account.bypassed_s = now
        account.bypassed += 1
        account.bypass_level = max(account.bypass_level, by.score)

    def caught_up(self, account: Account) -> None:
        """Forget the bypasses once the account was given as much as those that passed it."""
        if account.bypassed and account.score >= account.bypass_level:
            account.bypassed = account.bypass_level = 0

    def progress(self, job: Job, output_tokens: int, most: int) -> None:
        """A running job has made `output_tokens` of at most `most`; an outrun reservation is estimated anew."""
        grew = job.reserve
        held = job.prompt_tokens + output_tokens
        if held >= job.reserve:
            job.reserve = max(held, job.prompt_tokens + ceil(min(output_tokens * self.config.outrun, most)))
        self.growth += job.reserve - grew - (output_tokens - job.served)
        job.served = output_tokens


class Needs:
    """The smallest need of all heads, so that a full engine is answered without looking at each of them.

    Built when first asked for, dropped when nobody asked while the heads changed once over: an engine with
    room to spare never pays for it.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Job]] = []
        self.built = False
        self._pushed = 0

    def push(self, job: Job, active: int) -> None:
        """Note a new head, or a new need of a head, where `built`."""
        self._pushed += 1
        heappush(self._heap, (job.reserve, job.number, job))
        if self._pushed > active + 64 or len(self._heap) > 4 * active + 64:
            self.built, self._heap = False, []

    def least(self, accounts: Callable[[], list[Account]]) -> float:
        """KV tokens the easiest head needs; infinite where nothing waits."""
        if not self.built:
            heads = [account.head for account in accounts() if account.head is not None]
            self._heap = [(job.reserve, job.number, job) for job in heads]
            heapify(self._heap)
            self.built = True
        self._pushed = 0
        heap = self._heap
        while heap:
            need, _, job = heap[0]
            if job.account.head is job and job.reserve == need:
                return need
            heappop(heap)
        return float("inf")


def prefill_budget(step_tokens: int, decoding: int) -> int:
    """Tokens of a step left for prefills: decodes come first, so no prefill ever pauses one (stall-free)."""
    return max(step_tokens - decoding, 0)


def step_budget(
    step_time_s: Callable[[int], float], tpot_s: float, *, least: int = 1, most: int = 8192
) -> int:
    """The largest number of tokens in [least, most] whose predicted step takes at most `tpot_s` seconds.

    `step_time_s(tokens)` must not fall as tokens grow. Where even `least` takes longer, `least`: a step
    must go on. Raises `BadInput` where the target or a predicted time is not a number from 0 up.
    """
    if not tpot_s > 0 or not 1 <= least <= most:
        raise BadInput(f"tpot_s={tpot_s}, least={least}, most={most}", "tpot_s above 0, 1 <= least <= most")
    low, high = least, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _seconds(step_time_s, middle) <= tpot_s else (low, middle)
    return low


def _seconds(step_time_s: Callable[[int], float], tokens: int) -> float:
    seconds = step_time_s(tokens)
    if isnan(seconds) or seconds < 0:
        raise BadInput(f"a step of {tokens} tokens takes {seconds} s", "a number from 0 up")
    return seconds
