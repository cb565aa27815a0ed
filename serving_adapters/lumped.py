"""Metrics of many tenants with few labels: those that have one, and the rest added up as one more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from mope.equinox import ClientMetrics, Metrics, prometheus_text
from mope.serving_adapters.tenants import Labels

PREFIX = "mope_equinox"
NOT_ADDED = ("client", "weight", "waited_max_s")


def lumped_metrics(metrics: Metrics, labels: Labels) -> Metrics:
    """The same metrics with every tenant that `labels` gives no label of its own added up under one name."""
    found: dict[str, ClientMetrics] = {}
    for one in metrics.clients:
        label = labels.of(one.client, one.finished)
        found[label] = _added(found[label], one) if label in found else replace(one, client=label)
    return replace(metrics, clients=tuple(found.values()))


def _added(total: ClientMetrics, one: ClientMetrics) -> ClientMetrics:
    names = [item.name for item in fields(total) if item.name not in NOT_ADDED]
    sums = {name: getattr(total, name) + getattr(one, name) for name in names}
    return replace(total, waited_max_s=max(total.waited_max_s, one.waited_max_s), **sums)


def metrics_text(metrics: Metrics, totals: Mapping[str, int]) -> str:
    """Prometheus text of metrics and of the adapter's own counts."""
    lines = [f"# TYPE {PREFIX}_events gauge"]
    lines += [f'{PREFIX}_events{{event="{name}"}} {count}' for name, count in sorted(totals.items())]
    return prometheus_text(metrics, PREFIX) + "\n".join(lines) + "\n"
