"""The next few requests in prospective order, for engines that sort a list before each admission.

`FairScheduler.order` looks at every request it is given. This takes time by how many are asked for, not by how
many wait: accounts come from the turns one by one, and only those that were tried are kept apart.
"""

from __future__ import annotations

from heapq import heappop, heappush

from mope.equinox.state import Account, Job
from mope.equinox.steps import Steps


class Trial:
    """An account of which the jobs before `job` were tried: copies of its counters."""

    __slots__ = ("job", "resource", "user")

    def __init__(self, account: Account, job: Job) -> None:
        self.user, self.resource, self.job = account.user, account.resource, job


def leading(count: int, now: float, steps: Steps) -> list[str]:
    """Ids of the first `count` requests as `next` would start them one after the other, if each fitted.

    The first `count` of `FairScheduler.order` over all that waits, with no slots. Charges nothing. `now` is not
    checked: it is that of the last call, or later.
    """
    policy, ids = steps.policy, list[str]()
    tried: list[tuple[int, int, Trial]] = []
    walk = steps.turns.in_order()
    account = next(walk, None)
    while len(ids) < count:
        if account is not None and (not tried or _turn(account) < tried[0][:2]):
            assert account.head is not None
            trial, account = Trial(account, account.head), next(walk, None)
        elif tried:
            trial = heappop(tried)[2]
        else:
            break
        job = trial.job
        ids.append(job.request.id)
        if job.after is not None:
            user, resource = steps.foreseen(job, now)
            trial.user, trial.resource, trial.job = (
                trial.user + user - job.user,
                trial.resource + resource - job.resource,
                job.after,
            )
            score = policy.score(trial.user, trial.resource, job.after)
            heappush(tried, (score, job.after.number, trial))
    walk.close()
    return ids


def _turn(account: Account) -> tuple[int, int]:
    assert account.head is not None
    return account.score, account.head.number
