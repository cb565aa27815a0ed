"""The parts of an overlay, one by one, in worlds whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.adapt.correction import fit_line, fit_ridge, fit_rising, fit_router, fit_spread, rising, unseen
from mope.adapt.ends import fit_ends, quantile
from mope.adapt.standin import chosen
from mope.predictor.overlay import Overlay

UNCUT = np.zeros(0, np.bool_)


def forecasts(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 1, n)


def test_nothing_seen_is_the_identity():
    none = np.zeros(0)
    assert fit_router(np.zeros((0, 3)), np.zeros(0, np.int64), UNCUT, none) == (0, 0, 0)
    assert fit_rising(none, none, UNCUT, none) == ((), 1.0)
    assert fit_spread(np.zeros((0, 3)), none, UNCUT, none, (0.1, 0.5, 0.9)) == 1.0
    assert fit_ridge(np.zeros((0, 2)), none, none, np.zeros(0, np.int64)) is None
    assert fit_ends(none, none, none, UNCUT, none, np.zeros(0, np.int64)) == ((0, 0),) * 3


@pytest.mark.parametrize("n", [20, 60, 400])
@pytest.mark.parametrize(("factor", "slope"), [(2.0, 1.0), (0.25, 1.0), (1.0, 0.8)])
def test_a_constant_factor_and_a_power_are_found(n: int, factor: float, slope: float):
    x = forecasts(n)
    truth = slope * x + np.log(factor)
    knots, beyond = fit_rising(x, truth, np.zeros(n, np.bool_), np.ones(n))
    assert Overlay("m", knots=knots, slope=beyond).corrected(x) == pytest.approx(truth, abs=0.02)


@given(st.integers(1, 200), st.integers(0, 99), st.floats(-2, 2), st.booleans())
def test_what_is_fitted_never_falls(n: int, seed: int, slope: float, cut: bool):
    rng = np.random.default_rng(seed)
    x = rng.normal(5, 1, n).round(1)
    truth, weight = np.maximum(slope * x + rng.normal(0, 1, n) + 3, 0), rng.uniform(0.1, 1, n)
    knots, beyond = fit_rising(x, truth, rng.random(n) < 0.3 if cut else np.zeros(n, np.bool_), weight)
    line = Overlay("m", knots=knots, slope=beyond).corrected(np.linspace(-1, 12, 200))
    assert (np.diff(line) >= -1e-9).all()


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 3)), max_size=30))
def test_pooling_keeps_the_mean_and_what_rises_already(pairs: list[tuple[float, float]]):
    values, weight = (np.array([p[k] for p in pairs]) for k in (0, 1))
    found = rising(values, weight)
    assert (np.diff(found) >= -1e-9).all()
    assert (found * weight).sum() == pytest.approx((values * weight).sum(), abs=1e-6)
    assert rising(np.sort(values), weight) == pytest.approx(np.sort(values))


def test_a_few_answers_do_not_tilt_the_line():
    x = np.array([5.0, 5.1, 5.2])
    _, level, slope = fit_line(x, 3 * x, np.zeros(3, np.bool_), np.ones(3))
    assert slope < 2
    assert level > 5


def test_cut_answers_pull_only_from_below():
    x = forecasts(300)
    truth = x + 1.0
    limit = np.full(300, 5.5)
    cut = truth >= limit
    knots, slope = fit_rising(x, np.minimum(truth, limit), cut, np.ones(300))
    assert Overlay("m", knots=knots, slope=slope).corrected(x[~cut]) == pytest.approx(truth[~cut], abs=0.05)
    assert unseen(np.array([1.0, 1.0]), np.array([True, False]), np.array([3.0, 3.0])).tolist() == [3.0, 1.0]


def test_the_router_learns_the_frequencies_of_the_buckets():
    chances, n = np.full((900, 3), 1 / 3), 900
    bucket = np.repeat([0, 0, 0, 1, 2, 2], n // 6)
    shift = fit_router(chances, bucket, np.zeros(n, np.bool_), np.ones(n))
    assert Overlay("m", router=shift).chances(chances[:1])[0] == pytest.approx(
        [3 / 6, 1 / 6, 2 / 6], abs=0.01
    )
    few = fit_router(chances[:6], bucket[::150], np.zeros(6, np.bool_), np.ones(6))
    assert np.abs(few).max() < 0.7 * np.abs(shift).max()


def test_a_cut_answer_may_be_of_any_longer_bucket():
    chances, bucket = np.full((400, 3), 1 / 3), np.full(400, 1)
    told = fit_router(chances, bucket, np.zeros(400, np.bool_), np.ones(400))
    cut = fit_router(chances, bucket, np.ones(400, np.bool_), np.ones(400))
    assert told[1] > 2 > abs(told[2])
    assert cut[1] == pytest.approx(cut[2])
    assert cut[1] > cut[0] + 1


def test_a_ridge_finds_what_is_linear_and_leaves_noise_alone():
    rng = np.random.default_rng(0)
    rows, fold = rng.normal(size=(400, 12)), np.arange(400) % 5
    found = fit_ridge(rows, 0.5 * rows[:, 3], np.ones(400), fold)
    assert found is not None
    assert np.abs(found(rows) - 0.5 * rows[:, 3]).mean() < 0.05
    noise = fit_ridge(rows[:60], rng.normal(size=60), np.ones(60), fold[:60])
    assert noise is None or np.abs(noise(rows)).mean() < 0.25


def test_the_spread_follows_the_answers():
    rng, levels = np.random.default_rng(1), (0.1, 0.3, 0.5, 0.7, 0.9)
    ends = np.array([-1.2816, -0.5244, 0, 0.5244, 1.2816])
    logs = 5 + np.tile(ends, (3000, 1))
    for true in (0.5, 1.0, 1.7):
        found = fit_spread(logs, rng.normal(5, true, 3000), np.zeros(3000, np.bool_), np.ones(3000), levels)
        assert found == pytest.approx(true, rel=0.08)


def test_ends_by_hand():
    scores, weight = np.arange(1.0, 10.0), np.ones(9)
    assert quantile(scores, np.zeros(9, np.bool_), weight, 0.1) == 9  # nine of ten, one more answer counted
    assert quantile(scores, np.zeros(9, np.bool_), weight, 0.2) == 8
    assert np.isnan(quantile(scores[:0], UNCUT, weight[:0], 0.1))
    # The last three are only known to be above 6: the share above 6 is 4 of 10, and nothing says more.
    cut = np.array([False] * 6 + [True] * 3)
    assert quantile(scores, cut, weight, 0.4) == 6
    assert quantile(scores, cut, weight, 0.1) == 9


def test_cut_scores_count_as_what_they_may_be():
    """Exponential scores seen up to a random limit: the product-limit quantile is that of the uncut ones."""
    rng = np.random.default_rng(2)
    true, limit = rng.exponential(1, 4000), rng.exponential(2, 4000)
    scores, cut = np.minimum(true, limit), limit <= true
    found = quantile(scores, cut, np.ones(4000), 0.2)
    assert found == pytest.approx(np.log(5), rel=0.07)
    assert quantile(scores, np.zeros(4000, np.bool_), np.ones(4000), 0.2) < 0.75 * np.log(5)


def test_moved_ends_cover_what_was_not_seen():
    rng = np.random.default_rng(3)
    truth, fresh = rng.normal(0, 1, 2000), rng.normal(0, 1, 4000)
    bucket = np.repeat([0, 1, 2, 2], 500)
    moves = fit_ends(
        np.full(2000, -0.3), np.full(2000, 0.2), truth, np.zeros(2000, np.bool_), np.ones(2000), bucket
    )
    for low, high in moves:
        assert ((fresh >= -0.3 + low) & (fresh <= 0.2 + high)).mean() == pytest.approx(0.8, abs=0.03)


def test_the_stand_in_is_the_one_with_the_same_shape():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    said = np.array([[2.0, 2.0, 2.0, 2.0], [2.0, 3.0, 4.0, 5.0], [4.0, 3.0, 2.0, 1.0]])
    assert chosen(said, truth, np.zeros(4, np.bool_), 0) == 1
    assert chosen(np.tile(said[0], (3, 1)), truth, np.zeros(4, np.bool_), 2) == 2
