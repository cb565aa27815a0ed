"""What a policy answers. Subclass it and name it in the entry-point group `mope.policies` to use it by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mope.equinox.state import Account, Job
from mope.errors import MopeError

Charge = tuple[int, int]


class Refused(MopeError):
    """The policy does not take this request; nothing of it is kept."""


@dataclass(frozen=True)
class NoConfig:
    """Nothing to set."""


class Policy:
    """Base of all policies. A policy has no state of its own: what it keeps of a client is in `Account.extra`.

    `Config` is a frozen dataclass of plain values; `shorthand` names the field that a bare word sets, as in
    `rpm:20`, and `presets` are configs by name, as in `equinox:preset=paper`. `lifts` says whether a client that
    becomes active is lifted, `selective` whether `accept` is asked.
    """

    name: ClassVar[str] = ""
    Config: ClassVar[type[Any]] = NoConfig
    shorthand: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Any]] = {}
    lifts: ClassVar[bool] = True
    selective: ClassVar[bool] = False

    def __init__(self, config: Any = None) -> None:
        self.config = self.Config() if config is None else config

    @property
    def oracle(self) -> bool:
        """Whether the forecasts given to it should be the true lengths."""
        return False

    @property
    def metered(self) -> bool:
        """Whether output is charged as it comes rather than foreseen; then a lift never undoes it."""
        return False

    def accept(self, account: Account, now: float) -> None:
        """Take or refuse a request that arrives; raises `Refused`."""

    def expected_tokens(self, tokens: float, mean: float | None) -> float:
        """Output tokens to charge at admission, from those believed in and the client's running mean.

        Tokens made already are charged anyway.
        """
        return 0.0

    def charge(
        self,
        weight: float,
        prompt_tokens: int,
        output_tokens: float,
        head_s: float,
        queued_s: float,
        service_s: float,
        rate: float,
        util: float,
    ) -> Charge:
        """What a service adds to the user and the resource counter of a client of `weight`, in grains.

        As foreseen when a request is admitted, as it was when it is settled: `head_s` seconds at the head of
        the client's own queue, `queued_s` all its waiting, `service_s` seconds from admission to the last
        token, `rate` output tokens per second, `util` share of the hardware in [0, 1].
        """
        return 0, 0

    def score(self, user: int, resource: int, head: Job) -> int:
        """The smaller, the sooner: from the two counters in grains and the head of the queue."""
        raise NotImplementedError

    def tag(self, score: int) -> int:
        """A score as an integer that engines can take as a priority (53 bits)."""
        return score

    def forgets(self, account: Account, now: float) -> bool:
        """Whether an idle account holds nothing of the policy's own any more."""
        return account.extra is None
