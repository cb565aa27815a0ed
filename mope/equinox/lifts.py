"""Counter lifts, and settlements that arrive after one.

A client that becomes active has each counter c lifted to c' = max(c, m). With predicted charges, c still
holds charges that will be settled later. Charged with true values from the start, the counter would be
max(c + d, m) for a late difference d, not c' + d: so each lift remembers its room r = c - m, and a
difference of a job admitted before the lift passes as max(r + d, 0) - max(r, 0).
"""

from __future__ import annotations

from itertools import pairwise

from mope.equinox.state import Account, Job, Lift


def lift(account: Account, user: int, resource: int) -> None:
    """Raise the counters of an account that becomes active to the level (user, resource), in grains."""
    if account.running:
        _remember(account, user, resource)
    if account.user < user:
        account.user = user
    if account.resource < resource:
        account.resource = resource


def _remember(account: Account, user: int, resource: int) -> None:
    lifts = account.lifts = account.lifts or []
    room = Lift(account.user - user, account.resource - resource)
    if lifts and not lifts[-1].since:
        _join(lifts.pop(), room)
    lifts.append(room)


def apply(job: Job, user: int, resource: int, metered: bool) -> None:
    """Make (user, resource) the charge of `job`, in grains, in place of what it was charged so far.

    `metered`: more is for service rendered now, after all lifts, so it counts in full; only a refund passes
    through them.
    """
    account = job.account
    more_user, more_resource = user - job.user, resource - job.resource
    job.user, job.resource = user, resource
    if account.lifts and job.running:
        for room in _later(account, job):
            if not more_user and not more_resource:
                break  # stopped by an earlier one: nothing is left to pass on
            if more_user < 0 or not metered:
                more_user, room.user = _through(room.user, more_user)
            if more_resource < 0 or not metered:
                more_resource, room.resource = _through(room.resource, more_resource)
    account.user += more_user
    account.resource += more_resource


def _later(account: Account, job: Job) -> list[Lift]:
    """The lifts after the admission of `job`, oldest first."""
    lifts = account.lifts or []
    return lifts[lifts.index(job.lift) + 1 :] if job.lift in lifts else lifts


def _through(room: int, change: int) -> tuple[int, int]:
    """What of `change` reaches the counter, and the room it leaves."""
    return max(room + change, 0) - max(room, 0), room + change


def _join(earlier: Lift, later: Lift) -> None:
    """Put two lifts with nothing running between them into `later`."""
    later.user = _joined(earlier.user, later.user)
    later.resource = _joined(earlier.resource, later.resource)


def _joined(earlier: int, later: int) -> int:
    """The room of two lifts in a row: a fall stops at the nearer floor, a rise has to fill both gaps."""
    return min(earlier, later) if earlier > 0 and later > 0 else min(earlier, 0) + min(later, 0)


def begin(job: Job) -> None:
    """Note that `job` runs now, after the newest lift of its account."""
    if job.account.lifts:
        job.lift = job.account.lifts[-1]
        job.lift.since += 1


def end(job: Job) -> None:
    """Note that `job` runs no more, and forget the rooms that nothing can move any more."""
    account = job.account
    lifts = account.lifts or []
    if job.lift in lifts:
        job.lift.since -= 1
    while lifts and account.running == sum(room.since for room in lifts):
        lifts.pop(0)
    for earlier, later in pairwise(lifts[:]):
        if not earlier.since:
            _join(earlier, later)
            lifts.remove(earlier)
    account.lifts = lifts or None
