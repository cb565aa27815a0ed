"""Measurement: pure functions of a log of requests. Times in seconds, service in tokens unless said otherwise.

Service of a request is w_in * prompt + w_out * output tokens (1 and 2 as in VTC's study), spread evenly from its
first token to its last. Only requests served to the end count, except for demand, which counts what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mope.equinox import jain_index
from mope.sim.log import Codes, Requests

Floats = NDArray[np.float64]
W_IN, W_OUT = 1.0, 2.0
PRICED_OUT = 4.0  # output against prompt tokens in today's price lists
WINDOW_S, WARM_S, POINTS = 60.0, 30.0, 19
TIMES = ("ttft_s", "tpot_s", "latency_s")


def times(log: Requests) -> dict[str, Floats]:
    """TTFT (arrival to first token), TPOT (mean gap of later tokens), latency (arrival to last token) [n]; NaN where
    there is none."""
    later = np.maximum(log.output_tokens - 1, 1)
    tpot = np.where(log.output_tokens > 1, (log.finish_s - log.first_s) / later, np.nan)
    return {
        "ttft_s": log.first_s - log.arrival_s, "tpot_s": tpot, "latency_s": log.finish_s - log.arrival_s
    }  # fmt: skip


def spread(values: Floats) -> dict[str, float]:
    """Mean, p50, p90 and p99, NaN left out; empty where there are none."""
    known = values[~np.isnan(values)]
    if not known.size:
        return {}
    p50, p90, p99 = np.percentile(known, (50, 90, 99))
    return {"mean": float(known.mean()), "p50": float(p50), "p90": float(p90), "p99": float(p99)}


def cost(log: Requests, w_in: float = W_IN, w_out: float = W_OUT) -> Floats:
    """Service that each request is [n]."""
    return w_in * log.prompt_tokens + w_out * log.output_tokens


@dataclass(frozen=True)
class Service:
    """Service and demand over time by client. `names` [C]."""

    names: tuple[str, ...]
    _first: Floats
    _last: Floats
    _cost: Floats
    _client: Codes
    _came: Floats
    _asked: Floats
    _asker: Codes

    @classmethod
    def of(cls, log: Requests, w_out: float = W_OUT) -> Service:
        """From a log."""
        done = log.done
        demand = W_IN * log.prompt_tokens + w_out * log.asked_tokens
        served = cost(log, w_out=w_out)[done]
        return cls(
            log.clients, log.first_s[done], log.finish_s[done], served, log.client[done],
            log.arrival_s, demand, log.client,
        )  # fmt: skip

    def received(self, at: Sequence[float] | Floats) -> Floats:
        """Service each client has received up to each time: [C, T]."""
        length = np.maximum(self._last - self._first, 1e-9)
        found = np.zeros((len(self.names), len(at)))
        for i, time in enumerate(at):
            share = np.clip((time - self._first) / length, 0.0, 1.0)
            found[:, i] = np.bincount(self._client, share * self._cost, len(self.names))
        return found

    def demanded(self, at: Sequence[float] | Floats) -> Floats:
        """Cost of the requests of each client that came before each time: [C, T]."""
        found = np.zeros((len(self.names), len(at)))
        for i, time in enumerate(at):
            here = self._came < time
            found[:, i] = np.bincount(self._asker[here], self._asked[here], len(self.names))
        return found

    def rates(self, at: Floats, window_s: float = WINDOW_S) -> tuple[Floats, Floats]:
        """Service and demand a second of each client in windows around the times: two of [C, T]."""
        half = window_s / 2
        served = self.received(at + half) - self.received(at - half)
        asked = self.demanded(at + half) - self.demanded(at - half)
        return served / window_s, asked / window_s


def windowed_difference(service: Floats, demand: Floats) -> Floats:
    """VTC's service difference, the revised form of its Table 2, at each time: [C, T] twice -> [T].

    sum over clients i of min(max_j s_j - s_i, |d_i - s_i|), s and d rates of service and demand.
    """
    behind = service.max(axis=0, initial=0.0) - service
    return np.asarray(np.minimum(behind, np.abs(demand - service)).sum(axis=0))


def windowed_gap(service: Floats, demand: Floats) -> Floats:
    """VTC's service difference, the earlier form: max over clients i of min(max_j s_j - s_i, d_i - s_i)."""
    behind = service.max(axis=0, initial=0.0) - service
    return np.asarray(np.minimum(behind, demand - service).max(axis=0, initial=-np.inf))


def difference_points(duration_s: float) -> Floats:
    """The times at which VTC's table takes the difference: k (duration - 30) / 20 + 30, k = 1 to 19."""
    return np.arange(1, POINTS + 1) * (duration_s - WARM_S) / (POINTS + 1) + WARM_S


def accumulated_difference(received: Floats) -> Floats:
    """max_i - min_i of the service received so far, at each time: [C, T] -> [T] (VTC, figure 3)."""
    return np.asarray(received.max(axis=0) - received.min(axis=0)) if len(received) else received.sum(axis=0)


def summary_of(values: Floats) -> dict[str, float]:
    """Largest, mean and variance."""
    if not values.size:
        return {}
    return {"max": float(values.max()), "mean": float(values.mean()), "var": float(values.var())}


def throughput(log: Requests) -> dict[str, float]:
    """Tokens and requests a second of what was served, over the time from 0 until all is done."""
    done = log.take(log.done)
    wall = float(done.finish_s.max()) if len(done) else 0.0
    if not wall > 0:
        return {"wall_s": wall, "tokens_per_s": 0.0, "output_tokens_per_s": 0.0, "requests_per_s": 0.0}
    both = float(done.prompt_tokens.sum() + done.output_tokens.sum())
    return {
        "wall_s": wall,
        "tokens_per_s": both / wall,
        "output_tokens_per_s": float(done.output_tokens.sum()) / wall,
        "requests_per_s": len(done) / wall,
    }


def goodput(log: Requests, ttft_s: float, tpot_s: float) -> float:
    """Share of the requests that came which were served with TTFT and TPOT within both bounds."""
    if not len(log):
        return 0.0
    found = times(log)
    good = log.done & (found["ttft_s"] <= ttft_s) & ~(found["tpot_s"] > tpot_s)
    return float(good.mean())


def jain(amounts: Floats, weights: Floats) -> float:
    """Jain's index of service over weight, clients without any counted as zero: (sum x)^2 / (C sum x^2)."""
    x = amounts / weights
    positive = int((x > 0).sum())
    return jain_index(x.tolist()) * positive / len(x) if len(x) else 1.0
