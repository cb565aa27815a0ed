"""Split-conformal intervals hold what they promise, bucket by bucket."""

from __future__ import annotations

import numpy as np
import pytest

from mope.errors import BundleError
from mope.predictor.calibration import Calibration, calibrate, predicted_buckets

LEVELS = (0.1, 0.5, 0.9)


def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log quantiles that are too narrow in bucket 0, too wide in 1, shifted in 2; buckets; lengths."""
    rng = np.random.default_rng(seed)
    buckets = rng.integers(0, 3, n)
    truth = rng.normal(4.0 + buckets, 0.5)
    reach = np.array([0.1, 2.0, 0.64])[buckets]
    middle = 4.0 + buckets + np.array([0, 0, 0.7])[buckets]
    return np.stack([middle - reach, middle, middle + reach], axis=1), buckets, np.expm1(truth)


def test_coverage_is_eighty_per_cent_in_every_bucket():
    quantiles, buckets, lengths = world(6000, 0)
    fitted = calibrate({"soft": (quantiles, buckets)}, lengths, np.ones(6000), LEVELS)
    quantiles, buckets, lengths = world(30_000, 1)
    low, high = fitted.interval("soft", buckets, quantiles, LEVELS)
    inside = (low <= lengths) & (lengths <= high)
    for bucket in range(3):
        assert inside[buckets == bucket].mean() == pytest.approx(0.8, abs=0.02)


def test_by_hand():
    """Nine rows at median 0 whose ends are 0: each end moves to cover all but one in ten, with one row added."""
    logs = np.zeros((9, 3))
    lengths = np.expm1(np.arange(1.0, 10.0))
    fitted = calibrate({"soft": (logs, np.zeros(9, int))}, lengths, np.ones(9), LEVELS)
    assert np.allclose(fitted.shifts["soft"][0], (1.0, 9.0))
    assert fitted.shifts["soft"][1] == (0.0, 0.0)


def test_a_column_that_was_not_calibrated_keeps_its_ends_and_the_median_is_inside():
    logs = np.log1p(np.array([[10.0, 20.0, 30.0]]))
    low, high = Calibration({}).interval("hard", np.array([0]), logs, LEVELS)
    assert np.allclose((low[0], high[0]), (10, 30))
    odd = Calibration({"hard": ((9.0, -9.0),) * 3})
    low, high = odd.interval("hard", np.array([0]), logs, LEVELS)
    assert np.allclose((low[0], high[0]), (20, 20))


def test_json_round_trip():
    fitted = Calibration({"soft": ((0.1, 0.2), (0.3, 0.4), (-0.5, 0.6))})
    assert Calibration.from_json(fitted.to_json()) == fitted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"shifts": 3}',
        '{"shifts": {"soft": [[0, 1]]}}',
        '{"shifts": {"soft": [[0,1],[0,1],[0,NaN]]}}',
        '{"shifts": {"soft": [[0,1],[0,1],[0,1' + "0" * 400 + "]]}}",
        '{"shifts": {"soft": [[0,1,2],[0,1],[0,1]]}}',
        '{"shifts": {"soft": ["ab","cd","ef"]}}',
        '{"shifts": ' + "[" * 100_000,
    ],
)
def test_a_broken_file_is_refused(text: str):
    with pytest.raises(BundleError):
        Calibration.from_json(text)


def test_predicted_buckets_follow_the_bounds():
    assert predicted_buckets(np.log1p([9.9, 10.1, 19.9, 20.1]), (10, 20)).tolist() == [0, 1, 1, 2]
