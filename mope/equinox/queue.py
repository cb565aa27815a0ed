"""What waits: for each account a linked list of its jobs in the order of their numbers.

A list inside the jobs costs an account nothing, and a cancel in its middle takes constant time.
"""

from __future__ import annotations

from mope.equinox.state import Account, Job


def insert(account: Account, job: Job) -> None:
    """Put `job` before the first waiting job with a larger number: a new one last, a preempted one first."""
    account.waiting += 1
    last = account.last
    if last is None:
        account.head = account.last = job
        return
    if last.number < job.number:
        job.before, last.after, account.last = last, job, job
        return
    after = account.head
    while after is not None and after.number < job.number:
        after = after.after
    before = after.before if after is not None else last
    _join(account, before, job)
    _join(account, job, after)


def pop(account: Account) -> Job | None:
    """Take the head out; the new head, if there is one."""
    account.waiting -= 1
    old = account.head
    assert old is not None
    head = account.head = old.after
    if head is None:
        account.last = None
    else:
        head.before = old.after = None
    return head


def remove(job: Job) -> None:
    """Take `job` out, wherever it stands."""
    account = job.account
    account.waiting -= 1
    _join(account, job.before, job.after)
    job.before = job.after = None


def _join(account: Account, before: Job | None, after: Job | None) -> None:
    """Let `after` follow `before`; None is the end of the list on that side."""
    if before is None:
        account.head = after
    else:
        before.after = after
    if after is None:
        account.last = before
    else:
        after.before = before


def jobs(account: Account) -> list[Job]:
    """Its waiting jobs, the head first."""
    found, job = [], account.head
    while job is not None:
        found.append(job)
        job = job.after
    return found
