"""All of a scheduler as plain JSON values, and back. Orders of turns are not stored: they follow from the rest."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from mope.equinox import queue
from mope.equinox.admission import AdmissionConfig
from mope.equinox.advice import Priors
from mope.equinox.policies.base import Policy
from mope.equinox.recent import Recent
from mope.equinox.registry import make_policy
from mope.equinox.state import Account, Job, Lift
from mope.errors import BadInput
from mope.types import History, Request

if TYPE_CHECKING:
    from mope.equinox.scheduler import FairScheduler

FORMAT = 1
PLAIN_JOB = tuple(sorted({*Job.__slots__} - {"account", "after", "before", "lift", "request"}))
PLAIN_ACCOUNT = tuple(
    sorted({*Account.__slots__} - {"entry", "head", "last", "lifts", "running", "score", "tally", "waiting"})
)
S = TypeVar("S", bound="FairScheduler")


def dump(scheduler: FairScheduler) -> dict[str, Any]:
    """The state of a scheduler; integers may be larger than 64 bits, as JSON in Python keeps them."""
    accounts = scheduler.accounts
    return {
        "format": FORMAT,
        "policy": {"name": scheduler.policy.name, "config": asdict(scheduler.policy.config)},
        "admission": asdict(scheduler.admission.config),
        "priors": asdict(scheduler.priors),
        "weights": accounts.weights,
        "groups": accounts.groups,
        "now": _finite(scheduler.now),
        "number": scheduler.number,
        "accounts": [_account(account) for account in accounts.by_name.values()],
        "idle": list(accounts.idle),
        "last_left": accounts.last_left and _account(accounts.last_left),
        "sweep_at": accounts.sweep_at,
        "dropped": list(accounts.dropped),
        "jobs": [_job(job) for job in scheduler.jobs.values()],
        "pin": scheduler.pin and scheduler.pin.request.id,
        "pin_s": _finite(scheduler.pin_s),
        "passed": [account.name for account in scheduler.passed],
        "closed": scheduler.closed.ids(),
    }


def load(cls: type[S], snapshot: Mapping[str, Any], policy: Policy | None) -> S:
    """The scheduler of a snapshot; raises `BadInput` where one is not whole or of another format."""
    if snapshot.get("format") != FORMAT:
        raise BadInput(f"snapshot of format {snapshot.get('format')!r}", f"format {FORMAT}")
    try:
        return _load(cls, snapshot, policy)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"snapshot: {type(error).__name__} {error}", "one made by snapshot()") from error


def _load(cls: type[S], snapshot: Mapping[str, Any], policy: Policy | None) -> S:
    if policy is None:
        policy = make_policy(snapshot["policy"]["name"], **snapshot["policy"]["config"])
    scheduler = cls(
        policy,
        admission=AdmissionConfig(**snapshot["admission"]),
        priors=Priors(**snapshot["priors"]),
        weights=snapshot["weights"],
        groups=snapshot["groups"],
    )
    accounts = scheduler.accounts
    accounts.by_name = {values["name"]: _to_account(values) for values in snapshot["accounts"]}
    accounts.idle = {name: accounts.by_name[name] for name in snapshot["idle"]}
    if (last := snapshot["last_left"]) is not None:
        accounts.last_left = accounts.by_name.get(last["name"]) or _to_account(last)
    accounts.sweep_at = int(snapshot["sweep_at"])
    accounts.dropped = array("d", snapshot["dropped"])
    scheduler.number = int(snapshot["number"])
    scheduler.now, scheduler.pin_s = _infinite(snapshot["now"]), _infinite(snapshot["pin_s"])
    for values in snapshot["jobs"]:
        job = _to_job(values, accounts.by_name[values["account"]])
        scheduler.jobs[job.request.id] = job
    scheduler.pin = None if snapshot["pin"] is None else scheduler.jobs[snapshot["pin"]]
    scheduler.passed = [accounts.by_name[name] for name in snapshot["passed"]]
    if not isinstance(snapshot["closed"], list):
        raise TypeError("closed is no list")
    scheduler.closed = Recent(snapshot["closed"])
    _take_up(scheduler)
    return scheduler


def _take_up(scheduler: FairScheduler) -> None:
    """What follows from the jobs: who waits, who runs, whose turn it is."""
    for job in sorted(scheduler.jobs.values(), key=lambda job: job.number):
        if job.running:
            scheduler.running += 1
            job.account.running += 1
            scheduler.admission.growth += job.reserve - job.prompt_tokens - job.served
        else:
            queue.insert(job.account, job)
    for account in scheduler.accounts.by_name.values():
        if account.head is not None:
            scheduler.turns.active += 1
            scheduler.rescore(account)


def _account(account: Account) -> dict[str, Any]:
    lifts = [[room.user, room.resource, room.since] for room in account.lifts or ()]
    plain = {name: getattr(account, name) for name in PLAIN_ACCOUNT}
    return {**plain, "lifts": lifts, "tally": list(account.tally)}


def _to_account(values: Mapping[str, Any]) -> Account:
    account = Account(values["name"], values["weight"])
    for name in PLAIN_ACCOUNT:
        setattr(account, name, values[name])
    lifts = []
    for user, resource, since in values["lifts"]:
        room = Lift(user, resource)
        room.since = since
        lifts.append(room)
    account.lifts = lifts or None
    account.tally = array("d", values["tally"])
    return account


def _job(job: Job) -> dict[str, Any]:
    lifts = job.account.lifts or []
    return {
        **{name: getattr(job, name) for name in PLAIN_JOB},
        "account": job.account.name,
        "lift": lifts.index(job.lift) if job.lift in lifts else None,
        "request": asdict(job.request),
    }


def _to_job(values: Mapping[str, Any], account: Account) -> Job:
    job = Job(_to_request(values["request"]), account, values["number"], values["prompt_tokens"], 0.0)
    for name in PLAIN_JOB:
        setattr(job, name, values[name])
    if values["lift"] is not None:
        job.lift = (account.lifts or [])[values["lift"]]
    return job


def _to_request(values: Mapping[str, Any]) -> Request:
    past = values["history"]
    history = History(**{**past, "prompts": tuple(past["prompts"]), "lengths": tuple(past["lengths"])})
    return Request(**{**values, "history": history})


def _finite(value: float) -> float | None:
    """JSON knows no infinity; the beginning of time is None."""
    return None if value == float("-inf") else value


def _infinite(value: float | None) -> float:
    return float("-inf") if value is None else float(value)
