from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.evaluation.bootstrap import (
    Draws,
    Groups,
    holm,
    interval,
    mean_intervals,
    median_interval,
    paired_difference,
    resample,
    slope_interval,
)
from mope.evaluation.ranks import kendall_tau_b, pair_sums

Rng = np.random.Generator


def clustered(rng: Rng, groups: int, each: int = 4, mean: float = 5.0) -> tuple[np.ndarray, Groups]:
    """Values around `mean` that share half of their spread inside a group."""
    codes = np.repeat(np.arange(groups), each)
    values = mean + rng.normal(0, 1, groups)[codes] + rng.normal(0, 1, groups * each)
    return values, Groups.of(codes)


def test_groups_number_the_labels_whatever_their_order() -> None:
    groups = Groups.of(["b", "a", "b"])
    assert groups.codes.tolist() == [1, 0, 1]
    assert groups.sums(np.array([1.0, 2, 4])).tolist() == [[2], [5]]
    assert groups.take(np.array([True, False, True])).count == 1


def test_every_resample_draws_as_many_groups_as_there_are() -> None:
    drawn = resample(np.eye(7), Draws(50, seed=3))
    assert drawn.shape == (50, 7)
    assert (drawn.sum(axis=1) == 7).all()
    assert (drawn == drawn.round()).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(7), abs=0.5)


def test_a_resample_of_equal_groups_moves_nothing() -> None:
    found = interval(lambda s: s[..., 1] / s[..., 0], np.tile([2.0, 6.0], (9, 1)))
    assert (found.value, found.low, found.high) == (3, 3, 3)


def test_mean_interval_is_the_interval_of_its_sums() -> None:
    values, groups = clustered(np.random.default_rng(0), 30)
    weights = np.linspace(0.5, 1, len(values))
    direct = interval(lambda s: s[..., 1] / s[..., 0], groups.sums(weights, weights * values), Draws(200, 5))
    found = mean_intervals({"x": values, "y": -values}, weights, groups, Draws(200, 5))
    assert found["x"] == direct
    assert found["y"].low == pytest.approx(-found["x"].high)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values, groups = clustered(np.random.default_rng(0), 30)
    ones = np.ones(len(values))
    first, again, other = (mean_intervals({"x": values}, ones, groups, Draws(100, s))["x"] for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_rows_may_stand_in_any_order() -> None:
    rng = np.random.default_rng(0)
    values, groups = clustered(rng, 30)
    order = rng.permutation(len(values))
    moved = Groups.of(groups.codes[order])
    ones = np.ones(len(values))
    before, after = (
        mean_intervals({"x": v}, ones, g)["x"] for v, g in ((values, groups), (values[order], moved))
    )
    assert (before.low, before.high) == pytest.approx((after.low, after.high), rel=1e-12)
    assert median_interval(values, ones, groups) == median_interval(values[order], ones, moved)


def test_95_percent_intervals_hold_the_mean_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        values, groups = clustered(rng, 60)
        found = mean_intervals({"x": values}, np.ones(len(values)), groups, Draws(300, seed))["x"]
        hits += found.low <= 5 <= found.high
    assert 178 <= hits <= 198  # 190 expected, a percentile interval of 60 groups holds a little less


def test_rows_of_one_group_are_not_taken_for_independent() -> None:
    values, groups = clustered(np.random.default_rng(2), 60, each=40)
    ones = np.ones(len(values))
    right = mean_intervals({"x": values}, ones, groups)["x"]
    naive = mean_intervals({"x": values}, ones, Groups.of(np.arange(len(values))))["x"]
    assert right.high - right.low > 3 * (naive.high - naive.low)


def test_the_median_interval_is_the_one_of_repeated_rows() -> None:
    values, groups = clustered(np.random.default_rng(3), 15)
    draws = Draws(80, 4)
    counts = resample(np.eye(15), draws).astype(int)
    slow = [np.median(np.repeat(values, row[groups.codes])) for row in counts]
    found = median_interval(values, np.ones(len(values)), groups, draws)
    assert found.value == np.median(values)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


def test_the_rank_interval_is_as_wide_as_that_of_resampled_conversations() -> None:
    rng = np.random.default_rng(5)
    truth, groups = clustered(rng, 80)
    forecast = truth + rng.normal(0, 1.5, len(truth))
    value, slope = pair_sums(truth, forecast).tau_b()
    found = slope_interval(value, slope, groups, -1, 1)
    counts = resample(np.eye(80), Draws(300, 6))
    slow = [kendall_tau_b(truth, forecast, row[groups.codes]) for row in counts]
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(slow), rel=0.15)
    assert found.low < value < found.high


def test_the_rank_interval_by_hand() -> None:
    # sums by group 0.1 and -0.1: standard error sqrt(2 / 1 * 0.02) = 0.2
    found = slope_interval(0.0, np.array([0.2, -0.1, -0.1]), Groups.of(["a", "a", "b"]), -1, 1)
    assert (found.low, found.high) == pytest.approx((-0.392, 0.392), abs=1e-4)


def test_a_rank_interval_stays_in_range() -> None:
    found = slope_interval(0.99, np.array([1.0, -1.0]), Groups.of(["a", "b"]), -1, 1)
    assert (found.low, found.high) == (-1, 1)


def test_one_conversation_has_no_interval() -> None:
    groups, ones = Groups.of(["a", "a"]), np.ones(2)
    values = np.array([1.0, 3.0])
    found = [
        mean_intervals({"x": values}, ones, groups)["x"],
        median_interval(values, ones, groups),
        slope_interval(2.0, ones, groups, 0, 9),
        interval(lambda s: s[..., 0] / 2, groups.sums(values)),
        paired_difference(values, 0 * values, ones, groups),
    ]
    assert [f.value for f in found] == [2] * 5
    assert all(np.isnan([f.low, f.high]).all() for f in found)
    assert paired_difference(values, 0 * values, ones, groups).p == 1


def test_a_statistic_without_a_value_has_no_interval() -> None:
    found = interval(lambda s: s[..., 0] * np.nan, np.ones((4, 1)))
    assert np.isnan([found.value, found.low, found.high]).all()


def test_a_real_difference_is_found_and_none_is_not_made_up() -> None:
    rng = np.random.default_rng(7)
    values, groups = clustered(rng, 200)
    ones, noise = np.ones(len(values)), rng.normal(0, 0.3, len(values))
    better = paired_difference(values - 0.5 + noise, values, ones, groups)
    assert better.value == pytest.approx((noise - 0.5).mean())
    assert better.high < 0
    assert better.p == 2 / 1001
    assert paired_difference(values, values, ones, groups).p == 1


def test_the_sign_of_a_difference_turns_with_its_models() -> None:
    rng = np.random.default_rng(8)
    (first, groups), (second, _) = clustered(rng, 40), clustered(rng, 40)
    ones = np.ones(len(first))
    there, back = (
        paired_difference(first, second, ones, groups),
        paired_difference(second, first, ones, groups),
    )
    assert (there.value, there.low, there.p) == pytest.approx((-back.value, -back.high, back.p))


def test_p_values_of_no_difference_are_spread_evenly() -> None:
    rng = np.random.default_rng(9)
    found = []
    for seed in range(200):
        (first, groups), (second, _) = clustered(rng, 40), clustered(rng, 40)
        found.append(paired_difference(first, second, np.ones(len(first)), groups, Draws(200, seed)).p)
    assert 2 <= sum(p < 0.05 for p in found) <= 22  # 10 expected
    assert 80 <= sum(p < 0.5 for p in found) <= 120


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; the last may not fall below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1, 1]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_the_raw_value_and_bonferroni_and_keeps_the_order(values: list[float]) -> None:
    corrected = holm(values)
    for p, c in zip(values, corrected, strict=True):
        assert p <= c <= min(1, len(values) * p) + 1e-12
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.asarray(corrected)[order]) >= 0).all()
