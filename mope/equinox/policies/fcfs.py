"""First come, first served: the template for a policy."""

from __future__ import annotations

from typing import ClassVar

from mope.equinox.policies.base import Policy
from mope.equinox.state import Job


class Fcfs(Policy):
    """The oldest head is next; nothing is charged."""

    name: ClassVar[str] = "fcfs"
    lifts: ClassVar[bool] = False  # of counters that stay at zero

    def score(self, user: int, resource: int, head: Job) -> int:
        """The number the request was given when it came."""
        return head.number
