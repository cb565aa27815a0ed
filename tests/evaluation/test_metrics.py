from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.evaluation import metrics

TRUTH = [0, 10, 100, 400]
FORECAST = [50, 10, 151, 300]
LENGTHS = st.lists(st.integers(0, 300), min_size=1, max_size=30)


def test_errors_in_tokens() -> None:
    assert metrics.mae(TRUTH, FORECAST) == (50 + 0 + 51 + 100) / 4
    assert metrics.median_ae(TRUTH, FORECAST) == (50 + 51) / 2
    assert metrics.acc_within(TRUTH, FORECAST, 50) == 0.5
    assert metrics.acc_within(TRUTH, FORECAST, 100) == 1.0


def test_log_error_counts_a_negative_forecast_as_zero() -> None:
    assert metrics.log_mae([np.e - 1, 0], [0, -5]) == pytest.approx(0.5)


def test_k_answers_of_weight_one_in_k_count_as_one_prompt() -> None:
    assert metrics.mae([10, 20, 40], [0, 0, 0], [0.5, 0.5, 1]) == (15 + 40) / 2
    assert metrics.median_ae([1, 2, 9], [0, 0, 0], [1, 1, 3]) == 9


def test_the_median_sees_through_the_rounding_of_weights() -> None:
    assert metrics.weighted_median([1, 2, 3, 4, 5, 6], [1 / 3] * 6) == 3.5
    assert metrics.weighted_median([1, 2, 3, 9], [1 / 3, 1 / 3, 1 / 3, 1]) == 6


@given(LENGTHS)
def test_without_weights_the_median_is_numpys(values: list[int]) -> None:
    assert metrics.weighted_median(values) == np.median(values)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4)), min_size=1, max_size=12))
def test_a_whole_weight_is_a_repetition(pairs: list[tuple[int, int]]) -> None:
    values, weights = zip(*pairs, strict=True)
    assert metrics.weighted_median(values, weights) == np.median(np.repeat(values, weights))


def test_pinball_charges_the_missed_side_by_the_level() -> None:
    loss = metrics.pinball([100, 100], [[90, 100], [120, 130]], [0.1, 0.9])
    assert loss == pytest.approx([(0.1 * 10 + 0) / 2, (0.9 * 20 + 0.1 * 30) / 2])
    assert metrics.pinball_loss([100], [[90, 100]], [0.1, 0.9]) == pytest.approx(0.5)


@given(LENGTHS, st.floats(0.05, 0.95))
def test_no_constant_beats_the_quantile_at_its_level(values: list[int], level: float) -> None:
    def loss(constant: float) -> float:
        return metrics.pinball_loss(values, np.full((len(values), 1), constant), [level])

    best = np.quantile(values, level, method="inverted_cdf")
    assert all(loss(best) <= loss(other) + 1e-9 for other in range(0, 301, 7))


def test_coverage_takes_both_ends_in() -> None:
    assert metrics.coverage([1, 2, 3, 4], [1, 0, 0, 5], [1, 2, 2, 9]) == 0.5
    assert metrics.mean_width([1, 0], [2, 5]) == 3


def test_confusion_is_true_by_predicted() -> None:
    confusion = metrics.confusion_matrix([0, 0, 1, 2], [0, 1, 1, 0], [1, 1, 0.5, 0.5])
    assert confusion.tolist() == [[1, 1, 0], [0, 0.5, 0], [0.5, 0, 0]]
    assert metrics.bucket_accuracy(confusion) == 0.5


def test_macro_f1_by_hand() -> None:
    confusion = np.array([[1.0, 1, 0], [0, 2, 0], [0, 0, 0]])
    # short: precision 1, recall 1/2, F1 2/3; medium: precision 2/3, recall 1, F1 4/5; long never occurs
    assert metrics.macro_f1(confusion) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert np.isnan(metrics.macro_f1(np.zeros((3, 3))))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_bucket_scores_agree_with_sklearn(pairs: list[tuple[int, int]]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, said = zip(*pairs, strict=True)
    confusion = metrics.confusion_matrix(truth, said)
    assert metrics.bucket_accuracy(confusion) == pytest.approx(sklearn.accuracy_score(truth, said))
    assert metrics.macro_f1(confusion) == pytest.approx(
        sklearn.f1_score(truth, said, average="macro", zero_division=0.0)
    )


def test_skill_is_zero_at_the_constant_and_one_at_the_floor() -> None:
    assert metrics.skill([100, 100, 100], [100, 30, 65], [30, 30, 30]).tolist() == [0, 1, 0.5]
    assert np.isnan(metrics.skill(5, 4, 5))


def test_noise_floor_by_hand() -> None:
    # (10, 30): each is 20 from the other. (1, 2, 9): 1 from 5.5, 2 from 5, 9 from 1.5. (7) says nothing.
    assert metrics.leave_one_out_errors([9, 1, 2]).tolist() == [4.5, 3, 7.5]
    assert metrics.noise_floor([[10, 30], [9, 1, 2], [7]]) == (20 + 5) / 2
    assert np.isnan(metrics.noise_floor([[7]]))


@given(st.lists(st.integers(0, 100), min_size=2, max_size=9))
def test_leave_one_out_is_the_median_of_the_others(lengths: list[int]) -> None:
    ordered = sorted(lengths)
    slow = [abs(x - np.median(ordered[:i] + ordered[i + 1 :])) for i, x in enumerate(ordered)]
    assert metrics.leave_one_out_errors(lengths).tolist() == slow


def test_nothing_measures_as_nan() -> None:
    assert np.isnan(metrics.mae([], []))
    assert np.isnan(metrics.median_ae([], []))
