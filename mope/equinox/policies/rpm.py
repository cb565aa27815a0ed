"""Requests per minute: what operators do today. It is fair by refusing work, so report throughput beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from mope.equinox.policies.base import Refused
from mope.equinox.policies.fcfs import Fcfs
from mope.equinox.state import Account
from mope.errors import ConfigError


@dataclass(frozen=True)
class RpmConfig:
    """The limit; VTC's study used 5, 10, 15, 20 and 30."""

    limit: int = field(default=20, metadata={"help": "requests taken from a client in any window"})
    window_s: float = field(default=60.0, metadata={"help": "seconds of the window"})

    def __post_init__(self) -> None:
        if self.limit < 1 or not self.window_s > 0:
            raise ConfigError(f"rpm: {self}", "limit from 1, window_s above 0")


class Rpm(Fcfs):
    """Refuses a request when `limit` accepted ones of its client lie in the last `window_s`; the rest is FCFS.

    `Account.extra` is the list of accepted arrivals in the window, oldest first.
    """

    name: ClassVar[str] = "rpm"
    Config: ClassVar[type[RpmConfig]] = RpmConfig
    shorthand: ClassVar[str] = "limit"
    selective: ClassVar[bool] = True
    config: RpmConfig

    def accept(self, account: Account, now: float) -> None:
        """Raises `Refused` at the limit."""
        recent = self._recent(account, now)
        account.extra = recent or None
        if len(recent) >= self.config.limit:
            limit, window_s = self.config.limit, self.config.window_s
            raise Refused(f"client {account.name!r} sent {limit} requests in the last {window_s:g} s")
        account.extra = [*recent, now]

    def forgets(self, account: Account, now: float) -> bool:
        """Once the window has passed its last accepted request."""
        return not self._recent(account, now)

    def _recent(self, account: Account, now: float) -> list[float]:
        return [arrival for arrival in account.extra or () if arrival > now - self.config.window_s]
