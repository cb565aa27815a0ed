"""Counters of tenants in the Prometheus registry that an engine serves at /metrics.

Updated about once a second, and never for more than a hundredth of the time. Where an engine's scheduler runs in a
process of its own (vLLM's usually does), set `PROMETHEUS_MULTIPROC_DIR` to an empty folder before it starts: only
then does /metrics show what that process counts.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from mope.equinox import ClientMetrics
from mope.serving_adapters.lumped import PREFIX, lumped_metrics
from mope.serving_adapters.settings import Settings

if TYPE_CHECKING:
    from mope.serving_adapters.base import Controller

SHARE = 0.01  # of the time that updates may take
COUNTED = (
    "admitted", "finished", "cancelled", "fallbacks", "prompt_tokens", "output_tokens", "error_tokens", "waited_s",
)  # fmt: skip
SHOWN = ("waiting", "running", "user_counter", "resource_counter")


class Published:
    """The counters. A tenant's account may be dropped and come back at zero: counters only go up all the same."""

    def __init__(self, settings: Settings) -> None:
        self._every_s = settings.metrics_s
        self._next = 0.0
        self._seen: dict[tuple[str, str], float] = {}
        self._counters = {name: _counter(f"{name}_total", ["tenant"]) for name in COUNTED}
        self._gauges = {name: _gauge(name, ["tenant"]) for name in SHOWN}
        self._jain = _gauge("jain", [])
        self._events = _counter("events_total", ["event"])
        self._shown: set[str] = set()

    def update(self, controller: Controller, at_rest: bool = False) -> None:
        """Bring the registry up to date, unless that was done lately; `at_rest`: no step may follow, so do it."""
        start = monotonic()
        if start < self._next and not at_rest:
            return
        metrics = lumped_metrics(controller.scheduler.metrics(), controller.labels)
        for one in metrics.clients:
            self._tenant(one)
        self._clear(self._shown - {one.client for one in metrics.clients})
        self._jain.set(metrics.jain)
        for event, count in controller.totals().items():
            self._add(self._events.labels(event), ("event", event), count)
        took = monotonic() - start
        self._next = start + max(self._every_s, took / SHARE)

    def _clear(self, gone: set[str]) -> None:
        """Labels that stand for nobody now: given labels of their own meanwhile, or dropped."""
        for label in gone:
            for gauge in self._gauges.values():
                gauge.labels(label).set(0)
        self._shown -= gone

    def _tenant(self, one: ClientMetrics) -> None:
        self._shown.add(one.client)
        for name, counter in self._counters.items():
            self._add(counter.labels(one.client), (one.client, name), getattr(one, name))
        for name, gauge in self._gauges.items():
            gauge.labels(one.client).set(getattr(one, name))

    def _add(self, counter: Any, key: tuple[str, str], value: float) -> None:
        """What `value` grew by since it was last seen; all of it where it fell: the count has begun anew."""
        before = self._seen.get(key, 0.0)
        self._seen[key] = value
        grew = value - before if value >= before else value
        if grew:
            counter.inc(grew)


def _counter(name: str, labels: list[str]) -> Any:
    from prometheus_client import Counter

    return _registered(f"{PREFIX}_{name}") or Counter(f"{PREFIX}_{name}", f"Fair scheduling: {name}", labels)


def _gauge(name: str, labels: list[str]) -> Any:
    from prometheus_client import Gauge

    known = _registered(f"{PREFIX}_{name}")
    return known or Gauge(f"{PREFIX}_{name}", f"Fair scheduling: {name}", labels, multiprocess_mode="livesum")


def _registered(name: str) -> Any:
    """What has this name already: a process may make several engines, one after the other."""
    from prometheus_client import REGISTRY

    return REGISTRY._names_to_collectors.get(name)
