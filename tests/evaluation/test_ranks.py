from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.evaluation.ranks import kendall_tau_b, order_accuracy, pair_sums

SMALL = st.integers(0, 6)
PAIRS = st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=40)
WEIGHTED = st.lists(st.tuples(SMALL, SMALL, st.floats(0.1, 3)), min_size=2, max_size=15)


def test_order_accuracy_by_hand() -> None:
    # pairs of different truth: (1,2) tied forecast, (1,3) right, (2,3) right, (1,3') wrong, (2,3') wrong
    assert order_accuracy([1, 2, 3, 3], [5, 5, 9, 0]) == pytest.approx((0.5 + 1 + 1) / 5)
    assert order_accuracy([1, 2, 3], [7, 7, 7]) == 0.5
    assert np.isnan(order_accuracy([4, 4], [1, 2]))


@given(PAIRS)
def test_tau_b_is_scipys(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    truth, forecast = zip(*pairs, strict=True)
    expected = stats.kendalltau(truth, forecast).statistic if len({*truth}) > 1 < len({*forecast}) else np.nan
    assert kendall_tau_b(truth, forecast) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("n", [1, 2, 63, 1023, 4099])
def test_tau_b_is_scipys_at_odd_sizes(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(n)
    truth = rng.integers(0, max(2, n // 3), n)
    forecast = truth + rng.normal(0, n / 5, n)
    expected = stats.kendalltau(truth, forecast).statistic if n > 1 else np.nan
    assert kendall_tau_b(truth, forecast) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(WEIGHTED)
def test_weighted_sums_are_those_of_all_pairs(rows: list[tuple[int, int, float]]) -> None:
    truth, forecast, weights = (np.asarray(column, float) for column in zip(*rows, strict=True))
    score = truth_differs = right = 0.0
    for i, j in combinations(range(len(rows)), 2):
        pair = weights[i] * weights[j]
        agree = np.sign(truth[i] - truth[j]) * np.sign(forecast[i] - forecast[j])
        score += pair * agree
        truth_differs += pair * (truth[i] != truth[j])
        right += pair * (truth[i] != truth[j]) * (1 + agree) / 2
    sums = pair_sums(truth, forecast, weights)
    assert sums.score.sum() == pytest.approx(2 * score, abs=1e-9)
    assert sums.truth.sum() == pytest.approx(2 * truth_differs, abs=1e-9)
    if truth_differs:
        assert order_accuracy(truth, forecast, weights) == pytest.approx(right / truth_differs)


@given(WEIGHTED)
def test_slopes_are_the_derivative_to_a_rows_weight(rows: list[tuple[int, int, float]]) -> None:
    truth, forecast, weights = (np.asarray(column, float) for column in zip(*rows, strict=True))
    if len(set(truth)) < 2 or len(set(forecast)) < 2:
        return
    sums = pair_sums(truth, forecast, weights)
    nudge = np.ones(len(rows))
    for statistic, slope in ((kendall_tau_b, sums.tau_b()[1]), (order_accuracy, sums.order_accuracy()[1])):
        nudge[0] = 1 + 1e-6
        more = statistic(truth, forecast, weights * nudge)
        nudge[0] = 1 - 1e-6
        less = statistic(truth, forecast, weights * nudge)
        assert slope[0] == pytest.approx((more - less) / 2e-6, abs=1e-4)


def test_a_constant_with_broken_weights_has_no_tau() -> None:
    weights = np.full(3001, 1 / 3)
    value, slope = pair_sums(np.arange(3001), np.ones(3001), weights).tau_b()
    assert np.isnan(value)
    assert not slope.any()


def test_time_grows_like_n_log_n() -> None:
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    kendall_tau_b(rng.normal(size=100_000), rng.normal(size=100_000))
    assert time.perf_counter() - start < 5  # all pairs, 5e9 of them, would take minutes
