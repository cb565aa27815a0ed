import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from mope.training.boosting import Boosting, fit_buckets, fit_lengths, to_trees

SMALL = Boosting(iterations=30, rate=0.3, leaves=12, leaf_size=5)


def world(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Integers, fractions, a feature that is often missing and tells by that, and a constant one."""
    random = np.random.default_rng(7)
    rows = np.stack(
        [random.integers(0, 9, n), random.normal(size=n), random.normal(size=n), np.ones(n)], axis=1
    ).astype(np.float32)
    rows[random.random(n) < 0.4, 2] = np.nan
    targets = rows[:, 0] * 10 + rows[:, 1] ** 2 + np.where(np.isnan(rows[:, 2]), 50, 5 * rows[:, 2])
    return rows, targets.astype(np.float64)


def test_regression_agrees_with_scikit_learn():
    rows, targets = world()
    model = HistGradientBoostingRegressor(max_iter=40, min_samples_leaf=5).fit(rows, targets)
    trees = to_trees(model)
    np.testing.assert_allclose(trees.margins(rows)[:, 0], model.predict(rows), rtol=1e-12)
    np.testing.assert_allclose(trees.margins(rows[:1])[0, 0], model.predict(rows[:1])[0], rtol=1e-12)


def test_classification_agrees_with_scikit_learn():
    rows, targets = world()
    buckets = np.digitize(targets, [30, 60])
    model = HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5).fit(rows, buckets)
    np.testing.assert_allclose(to_trees(model).margins(rows), model.decision_function(rows), atol=1e-10)


def test_rows_at_and_beside_every_threshold_fall_to_the_same_side():
    rows, targets = world()
    model = HistGradientBoostingRegressor(max_iter=20, min_samples_leaf=5).fit(rows, targets)
    cuts = np.concatenate([t.nodes["num_threshold"] for step in model._predictors for t in step])
    cuts = cuts[np.isfinite(cuts)].astype(np.float32)
    near = np.concatenate([np.nextafter(cuts, np.float32(side)) for side in (-np.inf, np.inf)] + [cuts])
    probes = np.repeat(near[:, None], 4, axis=1)
    np.testing.assert_allclose(to_trees(model).margins(probes)[:, 0], model.predict(probes), rtol=1e-12)


def test_a_cut_between_missing_and_present_alone():
    rows = np.array([[np.nan], [3.0], [np.inf]] * 20, dtype=np.float32)[:40]
    targets = np.where(np.isnan(rows[:, 0]), 100.0, 1.0)
    model = HistGradientBoostingRegressor(max_iter=50, min_samples_leaf=2, learning_rate=0.5).fit(
        rows, targets
    )
    np.testing.assert_allclose(to_trees(model).margins(rows)[:, 0], model.predict(rows), rtol=1e-12)
    assert to_trees(model).margins(rows[:2])[:, 0] == pytest.approx([100, 1], abs=0.01)


def test_a_column_missing_everywhere_does_not_stop_the_fit():
    rows, targets = world()
    rows[:, 3] = np.nan
    trees = fit_lengths(rows, targets, SMALL, seed=0)
    assert np.abs(trees.margins(rows)[:, 0] - targets).mean() < 5
    rows[:, 3] = 1e6
    assert np.abs(trees.margins(rows)[:, 0] - targets).mean() < 5


def test_shares_are_the_probabilities_that_are_learned():
    rows = np.repeat(np.array([[0.0], [1.0]], dtype=np.float32), 100, axis=0)
    shares = np.repeat(np.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]]), 100, axis=0)
    margins = fit_buckets(rows, shares, Boosting(60, 0.3), seed=0).margins(rows[[0, 199]])
    chances = np.exp(margins) / np.exp(margins).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(chances, [[0.75, 0.25, 0], [0, 0.5, 0.5]], atol=0.03)


def test_a_bucket_nobody_falls_into_still_has_a_margin():
    rows, shares = world()[0], np.tile([0.5, 0.5, 0.0], (400, 1))
    assert (fit_buckets(rows, shares, SMALL, seed=0).margins(rows).argmax(axis=1) < 2).all()


def test_the_same_seed_grows_the_same_trees():
    rows, targets = world()
    one, two = (fit_lengths(rows, targets, SMALL, seed=3).margins(rows) for _ in range(2))
    assert one.tolist() == two.tolist()
