"""What the simulator reads of a scheduler beyond its calls, to know which calls would change nothing.

An adapter tells progress after every step and asks whenever it likes; a simulator that skips steps skips those calls
whose answer is certain. Only speed depends on this file: `stepwise` runs do without it and give the same log.
"""

from __future__ import annotations

from mope.equinox import FairScheduler

NO_END = float("inf")
PROBES = ((1.0, 0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.5), (1.0, 300, 500.0, 1.0, 2.0, 3.0, 40.0, 1.0))


def charges_nothing(scheduler: FairScheduler) -> bool:
    """Whether the policy has no counters at all."""
    return all(scheduler.policy.charge(*probe) == (0, 0) for probe in PROBES)


def quiet_tokens(scheduler: FairScheduler, request_id: str) -> int:
    """Output tokens that a running request has been charged for in advance."""
    return int(scheduler.jobs[request_id].counted)


def least_need(scheduler: FairScheduler) -> float:
    """KV tokens that the smallest head needs."""
    return scheduler.needs.least(scheduler.turns.accounts)


def heads(scheduler: FairScheduler) -> list[str]:
    """Ids of the requests at the head of their clients' queues."""
    return [one.head.request.id for one in scheduler.turns.accounts() if one.head is not None]
