"""Fair scheduling across clients: decisions only, with no clock and no I/O.

    scheduler = FairScheduler("equinox", weights={"gold": 2.0})
    scheduler.submit(request, now, forecast)
    while (request := scheduler.next(Capacity(kv_tokens=free), now)) is not None: ...
    scheduler.finish(request.id, Usage(output_tokens=212), now)

Formulas, bounds and limits: docs/equinox.md. A policy of your own: `mope.equinox.policies.base`.
"""

from __future__ import annotations

from mope.equinox.admission import AdmissionConfig, prefill_budget, step_budget
from mope.equinox.advice import Priors
from mope.equinox.locked import LockedScheduler
from mope.equinox.metrics import ClientMetrics, Metrics, jain_index, prometheus_text
from mope.equinox.policies.base import Policy, Refused
from mope.equinox.registry import make_policy, policy_names
from mope.equinox.scheduler import FairScheduler

__all__ = [
    "AdmissionConfig",
    "ClientMetrics",
    "FairScheduler",
    "LockedScheduler",
    "Metrics",
    "Policy",
    "Priors",
    "Refused",
    "jain_index",
    "make_policy",
    "policy_names",
    "prefill_budget",
    "prometheus_text",
    "step_budget",
]
