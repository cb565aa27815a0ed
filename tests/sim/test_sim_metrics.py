"""Measurement against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mope.sim import metrics
from mope.sim.log import Requests
from mope.sim.metrics import Service
from mope.sim.summary import refused, summarise
from mope.sim.table import mean, rows

NAN = float("nan")


def log(*given: tuple[str, float, float, float, int, int, str]) -> Requests:
    """(client, arrival, first, finish, prompt, output, status) rows; what was not served asked for its output."""
    columns: list[Any] = [np.array(column) for column in zip(*given, strict=True)]
    client, arrival, first, finish, prompt, output, status = columns
    (clients, client), (statuses, status_code) = (np.unique(c, return_inverse=True) for c in (client, status))
    return Requests(
        id=np.arange(len(given)), client=client.astype(np.int32), arrival_s=arrival, admitted_s=arrival,
        first_s=first,
        finish_s=finish, prompt_tokens=prompt, output_tokens=np.where(status == "done", output, 0),
        asked_tokens=output, preempted=np.zeros(len(given), int), status=status_code.astype(np.int32),
        clients=tuple(map(str, clients)), statuses=tuple(map(str, statuses)),
    )  # fmt: skip


TWO = log(
    ("a", 0.0, 1.0, 11.0, 100, 11, "done"),
    ("b", 0.0, 5.0, 5.0, 50, 1, "done"),
    ("a", 2.0, NAN, 2.0, 10, 45, "refused by the policy"),
)


def test_times_count_from_arrival_and_tpot_from_the_second_token() -> None:
    found = metrics.times(TWO)
    assert found["ttft_s"][:2].tolist() == [1.0, 5.0]
    assert found["latency_s"][:2].tolist() == [11.0, 5.0]
    assert found["tpot_s"][0] == 1.0
    assert np.isnan(found["tpot_s"][1])
    assert metrics.spread(found["ttft_s"]) == {"mean": 3.0, "p50": 3.0, "p90": 4.6, "p99": 4.96}
    assert metrics.spread(np.array([NAN])) == {}


def test_service_is_spread_from_the_first_to_the_last_token() -> None:
    service = Service.of(TWO)
    assert service.names == ("a", "b")
    # a costs 100 + 2 * 11 = 122, from 1 to 11 s; b costs 52, at 5 s
    assert service.received([0.5, 6.0, 20.0]).tolist() == [[0.0, 61.0, 122.0], [0.0, 52.0, 52.0]]
    assert service.demanded([1.0, 2.5]).tolist() == [[122.0, 222.0], [52.0, 52.0]]
    served, asked = service.rates(np.array([5.0]), window_s=4.0)
    assert served[:, 0] == pytest.approx([122 * 0.4 / 4, 52 / 4])
    assert asked[:, 0] == pytest.approx([0.0, 0.0])


def test_both_service_differences_of_vtc() -> None:
    s, d = np.array([[10.0], [4.0], [1.0]]), np.array([[30.0], [5.0], [9.0]])
    assert metrics.windowed_difference(s, d).tolist() == [0.0 + 1.0 + 8.0]
    assert metrics.windowed_gap(s, d).tolist() == [8.0]
    less = np.array([[30.0], [5.0], [0.0]])  # a client whose demand has passed: only the first form counts it
    assert metrics.windowed_difference(s, less).tolist() == [2.0]
    assert metrics.windowed_gap(s, less).tolist() == [1.0]
    points = metrics.difference_points(600.0)
    assert (len(points), points[0], points[-1]) == (19, 58.5, 571.5)
    assert metrics.accumulated_difference(np.array([[1.0, 7.0], [3.0, 2.0]])).tolist() == [2.0, 5.0]


def test_throughput_and_goodput() -> None:
    found = metrics.throughput(TWO)
    assert (found["wall_s"], found["requests_per_s"]) == (11.0, 2 / 11)
    assert found["tokens_per_s"] == pytest.approx(162 / 11)
    assert found["output_tokens_per_s"] == pytest.approx(12 / 11)
    assert metrics.goodput(TWO, 2.0, 1.0) == pytest.approx(1 / 3)
    assert metrics.goodput(TWO, 5.0, 1.0) == pytest.approx(2 / 3)
    assert metrics.throughput(TWO.take(~TWO.done))["tokens_per_s"] == 0.0


def test_jain_counts_those_who_got_nothing() -> None:
    assert metrics.jain(np.array([2.0, 2.0]), np.ones(2)) == pytest.approx(1.0)
    assert metrics.jain(np.array([2.0, 0.0]), np.ones(2)) == pytest.approx(0.5)
    assert metrics.jain(np.array([1.0, 3.0]), np.array([1.0, 3.0])) == pytest.approx(1.0)
    assert metrics.jain(np.array([]), np.array([])) == 1.0


def test_a_summary_has_throughput_beside_fairness_and_what_was_refused() -> None:
    found = summarise(TWO, 20.0, {"a": 2.0})
    assert (found["requests"], found["done"], found["refused"]) == (3, 2, {"refused by the policy": 1})
    assert found["tokens_per_s"] == pytest.approx(162 / 11)
    x = np.array([122 / 2, 52])
    assert found["jain_served"] == pytest.approx(x.sum() ** 2 / (2 * (x**2).sum()))
    assert found["clients"]["a"]["requests"] == 2
    assert found["clients"]["a"]["ttft_s"]["mean"] == 1.0
    assert found["service_difference"]["accumulated"]["max"] == pytest.approx(70.0)
    assert found["service_difference"]["accumulated_by_weight"]["max"] == pytest.approx(
        52 - 122 * 0.42 / 2
    )  # at 5.2 s, the first of the 100 points after b was served
    assert refused(TWO) == {"refused by the policy": 1}


def test_an_empty_log_has_a_summary() -> None:
    empty = TWO.take(np.zeros(3, bool))
    found = summarise(empty, 10.0)
    assert (found["requests"], found["tokens_per_s"], found["clients"]) == (0, 0.0, {})
    nobody = replace(empty, clients=(), statuses=())
    assert summarise(nobody, 10.0)["jain_served"] == 1.0


def test_means_have_student_s_interval() -> None:
    assert mean([3.0]) == (3.0, 3.0, 3.0)
    value, low, high = mean([1.0, 2.0, 3.0])
    assert value == 2.0
    assert (high - value, value - low) == pytest.approx((4.303 / 3**0.5, 4.303 / 3**0.5))


def test_rows_put_seeds_together() -> None:
    summary = summarise(TWO, 20.0)
    runs = [
        {"scenario": "s", "policy": policy, "predictor": "exact", "seed": seed, "summary": summary}
        for policy in ("b", "a")
        for seed in (0, 1)
    ]
    found = rows(runs)
    assert [(row["policy"], row["seeds"]) for row in found] == [("b", 2), ("a", 2)]
    assert found[0]["refused_share"]["value"] == pytest.approx(1 / 3)
    assert found[0]["ttft_s.mean"]["value"] == 3.0
