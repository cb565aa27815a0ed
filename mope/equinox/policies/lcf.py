"""Least counter first: VTC without the lift, to show what the lift is for."""

from __future__ import annotations

from typing import ClassVar

from mope.equinox.policies.vtc import Vtc
from mope.equinox.state import Account


class Lcf(Vtc):
    """A client that was away comes back with all the credit of its absence; so no idle account is dropped."""

    name: ClassVar[str] = "lcf"
    lifts: ClassVar[bool] = False

    def forgets(self, account: Account, now: float) -> bool:
        """Only an account that was never charged."""
        return account.user == 0
