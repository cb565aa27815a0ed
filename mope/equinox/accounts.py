"""The accounts there are: found by client name, lifted when they become active, dropped when they owe nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import isfinite

from mope.equinox.lifts import lift
from mope.equinox.policies.base import Policy
from mope.equinox.state import LONGEST, Account, Job, new_tally
from mope.errors import ConfigError

LEAST_SWEEP = 64
WEIGHTS = (1e-6, 1e6)


class Accounts:
    """Accounts by name. `idle` are those with nothing waiting and nothing running, the longest idle first."""

    def __init__(self, policy: Policy, weights: Mapping[str, float], groups: Mapping[str, str]) -> None:
        self._policy = policy
        self.weights = {name: checked_weight(name, weight) for name, weight in weights.items()}
        self.groups = dict(groups)
        self.by_name: dict[str, Account] = {}
        self.idle: dict[str, Account] = {}
        self.last_left: Account | None = None
        self.dropped = new_tally()
        self.sweep_at = LEAST_SWEEP

    def of(self, client: str) -> Account:
        """The account of a client name: of its group where it has one; new ones start at zero."""
        name = self.groups.get(client, client) if self.groups else client
        account = self.by_name.get(name)
        if account is None:
            account = self.by_name[name] = Account(name, self.weights.get(name, 1.0))
            self.idle[name] = account
        return account

    def set_weight(self, client: str, weight: float) -> None:
        """From the next charge on; raises `ConfigError` on a weight that is not a number within `WEIGHTS`."""
        name = self.groups.get(client, client)
        self.weights[name] = checked_weight(name, weight)
        if name in self.by_name:
            self.by_name[name].weight = weight

    def activate(self, account: Account, first: Account | None) -> None:
        """Lift an account that becomes active to the counters of the one whose turn is `first`.

        Where nobody is active, to those of the last that left. So its score is never below the smallest
        active score, whatever name it comes under.
        """
        self.idle.pop(account.name, None)
        account.bypassed = account.bypass_level = 0
        level = first or self.last_left
        if self._policy.lifts and level is not None and level is not account:
            lift(account, level.user, level.resource)
        if self.last_left is not None and self.last_left.name == account.name:
            self.last_left = account  # it was dropped and is back

    def rest(self, account: Account) -> bool:
        """Note that an account has become idle; says whether it is time to sweep."""
        account.tail = 0
        self.idle[account.name] = account
        return len(self.idle) >= self.sweep_at

    def sweep(self, active: Iterable[Account], jobs: Collection[Job], now: float) -> None:
        """Drop every idle account that any later lift would raise to the same counters as a new one.

        That is certain once its counters are not above the level that lifts can fall to: `_floor`. The next
        sweep waits until there is a quarter as many new idle accounts as there is to look at, so each becoming
        idle costs constant time.
        """
        user, resource = self._floor(active, jobs)
        for account in list(self.idle.values()):
            small = account.user <= max(user, 0) and account.resource <= max(resource, 0)
            if small and self._policy.forgets(account, now):
                self._drop(account)
        self.by_name, self.idle = dict(self.by_name), dict(self.idle)
        self.sweep_at = len(self.idle) + max(LEAST_SWEEP, (len(self.by_name) + len(jobs)) // 4)

    def _floor(self, active: Iterable[Account], jobs: Collection[Job]) -> tuple[int, int]:
        """What no lift will ever be below, for each counter.

        The least counter of an active account (where there is none, of the last that left), all its open jobs
        refunded in full; less what others with open jobs may be refunded once they are back at that level.
        """
        refunds: dict[Account, tuple[int, int]] = {}
        for job in jobs:
            if job.admissions:
                user, resource = refunds.get(job.account, (0, 0))
                refunds[job.account] = (user + job.user, resource + job.resource)
        floors: list[tuple[int, int]] = []
        for one in list(active) or [account for account in [self.last_left] if account is not None]:
            user, resource = refunds.pop(one, (0, 0))
            floors.append((one.user - user, one.resource - resource))
        least_user = min((floor[0] for floor in floors), default=0)
        least_resource = min((floor[1] for floor in floors), default=0)
        others = refunds.values()
        return least_user - sum(one[0] for one in others), least_resource - sum(one[1] for one in others)

    def _drop(self, account: Account) -> None:
        del self.idle[account.name], self.by_name[account.name]
        longest = max(self.dropped[LONGEST], account.tally[LONGEST])
        for place, amount in enumerate(account.tally):
            self.dropped[place] += amount
        self.dropped[LONGEST] = longest


def checked_weight(name: str, weight: float) -> float:
    """`weight` as it is; raises `ConfigError` unless it is a number within `WEIGHTS`."""
    least, most = WEIGHTS
    if not (isfinite(weight) and least <= weight <= most):
        raise ConfigError(f"weight {weight} of client {name!r}", f"a number from {least:g} to {most:g}")
    return weight
