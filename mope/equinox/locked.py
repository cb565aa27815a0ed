"""One scheduler for several threads: every call holds one lock."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Any

from mope.equinox.scheduler import FairScheduler

CALLS = (
    "submit", "advise", "peek", "admit", "next", "order", "tag", "progress", "finish", "cancel", "requeue",
    "set_weight", "reserved_tokens", "metrics", "snapshot", "sweep",
)  # fmt: skip


class LockedScheduler(FairScheduler):
    """`FairScheduler` that may be called from any thread.

    A call is atomic, two calls are not: use `next` rather than `peek` and `admit`, or hold `lock` around both.
    Threads that read their clocks before they get the lock may come in the wrong order; then time stands still.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.lock = RLock()
        super().__init__(*args, **settings)

    @property
    def growth_tokens(self) -> int:
        """As `FairScheduler.growth_tokens`."""
        with self.lock:
            return super().growth_tokens


def _locked(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def locked(self: LockedScheduler, *args: Any, **settings: Any) -> Any:
        with self.lock:
            return call(self, *args, **settings)

    return locked


for _name in CALLS:
    setattr(LockedScheduler, _name, _locked(getattr(FairScheduler, _name)))
