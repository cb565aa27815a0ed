"""A log in numbers: overall and per client, throughput always beside fairness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mope.sim import metrics
from mope.sim.log import Requests
from mope.sim.metrics import Service

SLO_TTFT_S, SLO_TPOT_S = 2.0, 0.1
CURVE = 100
MOST_CLIENTS = 200  # in a summary one by one: those who came with the most requests


def summarise(
    log: Requests,
    duration_s: float,
    weights: Mapping[str, float] | None = None,
    slo: tuple[float, float] = (SLO_TTFT_S, SLO_TPOT_S),
) -> dict[str, Any]:
    """Everything that is measured of a run whose requests came within `duration_s`.

    Jain's indices: `jain_served` of service by weight until the last arrival, `jain_ttft` of mean TTFT by client.
    Service differences: see `mope.sim.metrics`; `windowed` and `windowed_gap` at VTC's 19 points, `accumulated`
    and `accumulated_by_weight` at 100 points up to the last arrival. `windowed_priced` counts an output token as
    four prompt tokens, not two.
    """
    service, priced = Service.of(log), Service.of(log, metrics.PRICED_OUT)
    weight = np.array([(weights or {}).get(name, 1.0) for name in service.names])
    end = duration_s
    points = metrics.difference_points(end) if len(log) else np.empty(0)
    rates = service.rates(points)
    curve = service.received(np.linspace(0, end, CURVE + 1)[1:])
    done = log.take(log.done)
    spreads = {name: metrics.spread(values) for name, values in metrics.times(done).items()}
    return {
        "requests": len(log),
        "done": len(done),
        "refused": refused(log),
        "preempted": int(log.preempted.sum()),
        **metrics.throughput(log),
        **spreads,
        "goodput": metrics.goodput(log, *slo),
        "jain_served": metrics.jain(service.received([end])[:, 0], weight),
        "jain_ttft": _jain_ttft(done),
        "service_difference": {
            "windowed": metrics.summary_of(metrics.windowed_difference(*rates)),
            "windowed_priced": metrics.summary_of(metrics.windowed_difference(*priced.rates(points))),
            "windowed_gap": metrics.summary_of(metrics.windowed_gap(*rates)),
            "accumulated": metrics.summary_of(metrics.accumulated_difference(curve)),
            "accumulated_by_weight": metrics.summary_of(
                metrics.accumulated_difference(curve / weight[:, None])
            ),
        },
        "clients": clients(log, weights or {}),
    }


def refused(log: Requests) -> dict[str, int]:
    """Requests that were not served, by reason."""
    counts = np.bincount(log.status[~log.done], minlength=len(log.statuses))
    return {reason: int(count) for reason, count in zip(log.statuses, counts, strict=True) if count}


def clients(log: Requests, weights: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Numbers by client, in the order of their names."""
    counts = np.bincount(log.client, minlength=len(log.clients))
    most = [log.clients[code] for code in np.argsort(-counts, kind="stable")[:MOST_CLIENTS] if counts[code]]
    rows = np.argsort(log.client, kind="stable")
    ends = np.cumsum(counts)
    found = {}
    for name in sorted(most):
        code = log.clients.index(name)
        own = log.take(rows[ends[code] - counts[code] : ends[code]])
        found[name] = _client(own, weights.get(name, 1.0))
    return found


def _client(log: Requests, weight: float) -> dict[str, Any]:
    done = log.take(log.done)
    found = metrics.times(done)
    return {
        "weight": weight,
        "requests": len(log),
        "done": len(done),
        "prompt_tokens": int(done.prompt_tokens.sum()),
        "output_tokens": int(done.output_tokens.sum()),
        **{name: metrics.spread(values) for name, values in found.items()},
    }


def _jain_ttft(done: Requests) -> float:
    counts = np.bincount(done.client, minlength=len(done.clients))
    sums = np.bincount(done.client, metrics.times(done)["ttft_s"], len(done.clients))
    means = sums[counts > 0] / counts[counts > 0]
    return metrics.jain(means, np.ones(len(means)))
