"""The entry point `vllm.general_plugins`: makes Equinox the default scheduler where an environment variable asks.

Installing a package must never change how an engine schedules, so without `MOPE_VLLM=1` this does nothing at all. A
`--scheduler-cls` on the command line wins.
"""

from __future__ import annotations

import os
from functools import wraps
from typing import Any

VARIABLE = "MOPE_VLLM"


def register() -> None:
    """Called by vLLM in each of its processes, perhaps more than once."""
    if os.environ.get(VARIABLE, "").strip().lower() not in ("1", "true", "yes", "on"):
        return
    from vllm.config.scheduler import SchedulerConfig

    from mope.serving_adapters.vllm_adapter import EquinoxScheduler

    theirs = SchedulerConfig.get_scheduler_cls
    if getattr(theirs, "by_mope", False):
        return

    @wraps(theirs)
    def get_scheduler_cls(self: Any) -> Any:
        return EquinoxScheduler if self.scheduler_cls is None else theirs(self)

    get_scheduler_cls.by_mope = True  # type: ignore[attr-defined]
    SchedulerConfig.get_scheduler_cls = get_scheduler_cls
