"""Answers that charge nothing: the order requests would start in, and a tag for engines with integer priorities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from mope.equinox.policies.base import Policy
from mope.equinox.state import Account, Job
from mope.types import Capacity

if TYPE_CHECKING:
    from mope.equinox.steps import Steps


class Trial:
    """An account while an order is tried out: copies of its counters and bypasses, its jobs in order."""

    def __init__(self, account: Account, jobs: list[Job]) -> None:
        self.user, self.resource, self.score = account.user, account.resource, account.score
        self.bypassed, self.bypassed_s, self.level = (
            account.bypassed,
            account.bypassed_s,
            account.bypass_level,
        )
        self.jobs = jobs[::-1]  # the head last
        self.stuck = jobs[0].stuck

    def turn(self, policy: Policy) -> tuple[int, int, Trial]:
        """Its place in the order of turns."""
        head = self.jobs[-1]
        self.score = policy.score(self.user, self.resource, head)
        return self.score, head.number, self


Turn = tuple[int, int, Trial]


def prospective(jobs: Iterable[Job], capacity: Capacity, now: float, steps: Steps) -> list[str]:
    """Ids of waiting jobs as `next` would admit them from `capacity`, then the rest in the order of turns."""
    waiting: dict[Account, list[Job]] = {}
    for job in sorted(set(jobs), key=lambda job: job.number):
        waiting.setdefault(job.account, []).append(job)
    turns = [Trial(account, found).turn(steps.policy) for account, found in waiting.items()]
    heapify(turns)
    ids: list[str] = []
    room, running = capacity, steps.running
    while (found := _find(turns, room, now, not running, steps)) is not None:
        trial, passed = found
        job = trial.jobs[-1]
        room = replace(room, kv_tokens=room.kv_tokens - steps.trial(job).reserve, slots=room.slots - 1)
        running += 1
        _admit(trial, now, steps)
        for other in passed:
            _pass(other, trial, now)
        if trial.jobs:
            heappush(turns, trial.turn(steps.policy))
        ids.append(job.request.id)
    while turns:
        trial = heappop(turns)[2]
        ids.append(trial.jobs[-1].request.id)
        _admit(trial, now, steps)
        if trial.jobs:
            heappush(turns, trial.turn(steps.policy))
    return ids


def _find(
    turns: list[Turn], room: Capacity, now: float, alone: bool, steps: Steps
) -> tuple[Trial, list[Trial]] | None:
    """The first whose head fits, taken out of `turns`, and those it goes ahead of."""
    admission, passed, found = steps.admission, list[Turn](), None
    while turns and room.slots >= 1:
        turn = heappop(turns)
        job = turn[2].jobs[-1]
        if admission.fits(job, steps.trial(job).reserve, room, alone):
            found = turn[2]
            break
        passed.append(turn)
        if alone:
            turn[2].stuck = admission.never(job, room)
        if not turn[2].stuck and admission.late(turn[2].bypassed, turn[2].bypassed_s, now):
            break
    for turn in passed:
        heappush(turns, turn)
    return None if found is None else (found, [turn[2] for turn in passed])


def _admit(trial: Trial, now: float, steps: Steps) -> None:
    """Charge the head of `trial` as foreseen."""
    job = trial.jobs.pop()
    trial.stuck = bool(trial.jobs) and trial.jobs[-1].stuck
    user, resource = steps.foreseen(job, now)
    trial.user += user - job.user
    trial.resource += resource - job.resource
    trial.score = steps.policy.score(trial.user, trial.resource, trial.jobs[-1] if trial.jobs else job)
    if trial.score >= trial.level:
        trial.bypassed = trial.level = 0


def _pass(trial: Trial, by: Trial, now: float) -> None:
    if not trial.bypassed:
        trial.bypassed_s = now
    trial.bypassed += 1
    trial.level = max(trial.level, by.score)


def start_tag(job: Job, first: Account | None, now: float, steps: Steps) -> int:
    """S = max(V, F' of the client's tagged request before) as an integer; F = S + the charge in units of score.

    Start-time fair queueing (Goyal et al., 1996): V is the smallest active score, and a client's own score
    counts as its first F'. Moves only the account's `tail`, the F of its last tagged request.
    """
    account, policy = job.account, steps.policy
    virtual = first.score if first is not None else account.score
    start = max(virtual, account.score, account.tail)
    user, resource = steps.foreseen(job, now)
    charged = policy.score(account.user + user - job.user, account.resource + resource - job.resource, job)
    account.tail = start + charged - policy.score(account.user, account.resource, job)
    return policy.tag(start)
