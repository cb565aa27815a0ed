"""Sums of many forecasts: exact worlds, the copula's variances, and what never may happen."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.errors import ConfigError
from mope.totals import Curves, Shared, length_curves, span, stretched, totals
from mope.types import Forecast, LengthForecast, Request

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
SCORES = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
ALONE, TOGETHER, WHOLE = Shared(0.0, 0.0), Shared(0.0, 1.0), Shared(1.0, 0.0)


def normal(count: int, mean: float = 100.0, deviation: float = 10.0) -> Curves:
    """Requests whose quantity is normal: the curve is one straight line."""
    return Curves.of(LEVELS, np.tile(mean + deviation * SCORES, (count, 1)), logs=False)


def forecast(low: float, tokens: float, high: float) -> LengthForecast:
    return Forecast.of_tokens(tokens, low, high).length


def test_a_curve_goes_through_its_quantiles_and_on_in_a_line() -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0, 6.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    curve = Curves.of(LEVELS, values, logs=False)
    rows = np.array([0, 1])
    assert curve.at(np.tile(SCORES, (2, 1)), rows) == pytest.approx(values)
    beyond = (6 - 3) / (SCORES[4] - SCORES[2])
    assert curve.at(np.array([[SCORES[4] + 1]]), rows[:1])[0, 0] == pytest.approx(6 + beyond)
    assert curve.at(np.array([[-5.0]]), rows[:1])[0, 0] == 0  # no quantity is negative
    half = (SCORES[1] + SCORES[2]) / 2
    assert curve.at(np.array([[half]]), rows[:1])[0, 0] == pytest.approx(2.5)


def test_lengths_are_straight_in_logarithms_and_end_at_max_tokens() -> None:
    curves = length_curves([forecast(9, 99, 999)] * 2, [Request("a"), Request("b", max_tokens=500)])
    scores = np.array([[0.0, SCORES[4], SCORES[4] / 2]] * 2)
    found = curves.at(scores, np.array([0, 1]))
    assert found[0] == pytest.approx([99, 999, 10**2.5 - 1])
    assert found[1] == pytest.approx([99, 500, 10**2.5 - 1])


@pytest.mark.parametrize(
    ("shared", "deviation"),
    [
        (ALONE, 10 * 12**0.5),  # twelve independent errors
        (TOGETHER, 10 * (3 * 4**2) ** 0.5),  # three conversations of four that err as one
        (WHOLE, 10 * 12),  # all err as one
        (Shared(0.25, 0.25), 10 * (0.25 * 144 + 0.25 * 48 + 0.5 * 12) ** 0.5),
    ],
)
def test_variance_of_the_sum_is_that_of_the_formula(shared: Shared, deviation: float) -> None:
    groups = np.array([0, 1, 2] * 4)
    drawn = totals({"t": normal(12)}, groups, draws=40_000, shared=shared)["t"]
    assert drawn.mean() == pytest.approx(1200, abs=4 * deviation / 200)
    assert drawn.std() == pytest.approx(deviation, rel=0.03)


def test_one_request_keeps_the_interval_of_its_forecast() -> None:
    for shared in (ALONE, Shared(), TOGETHER):
        drawn = totals({"t": length_curves([forecast(20, 100, 400)])}, np.array([0]), 40_000, shared=shared)[
            "t"
        ]
        assert span(drawn) == pytest.approx((100, 20, 400), rel=0.05)


def test_quantities_of_one_draw_belong_together() -> None:
    drawn = totals({"a": normal(5), "b": normal(5, 200, 20)}, np.zeros(5, np.int64))
    assert drawn["b"] == pytest.approx(2 * drawn["a"])


def test_certain_requests_add_up_exactly() -> None:
    curves = length_curves([forecast(50, 50, 50), forecast(7, 7, 7)])
    assert totals({"t": curves}, np.array([0, 1]))["t"] == pytest.approx(np.full(2000, 57.0))


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    first, again, other = (totals({"t": normal(3)}, np.arange(3), seed=seed)["t"] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_pieces_tear_no_conversation_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mope.totals.CELLS", 3000)  # three rows at a time
    drawn = totals({"t": normal(60)}, np.repeat(np.arange(6), 10), draws=1000, shared=TOGETHER)["t"]
    assert drawn.mean() == pytest.approx(6000, abs=40)
    assert drawn.std() == pytest.approx(10 * (6 * 100) ** 0.5, rel=0.1)


def test_a_side_is_stretched_to_meet_its_calibrated_end() -> None:
    logs = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    found = stretched(LEVELS, logs, np.array([2.0]), np.array([7.0]))
    assert found == pytest.approx(np.array([[2.0, 2.5, 3.0, 5.0, 7.0]]))
    # a side without width is left alone, whatever calibration says of it
    flat = stretched(LEVELS, np.full((1, 5), 3.0), np.array([2.0]), np.array([7.0]))
    assert flat == pytest.approx(np.full((1, 5), 3.0))


@given(
    st.lists(st.tuples(*[st.floats(0, 1e5)] * 3), min_size=1, max_size=8),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
)
def test_totals_are_finite_and_lie_between_sensible_ends(
    ends: list[tuple[float, float, float]], file: float, conversation: float
) -> None:
    forecasts = [forecast(*sorted(three)) for three in ends]
    curves = length_curves(forecasts, [Request("p", max_tokens=1000)] * len(ends))
    drawn = totals({"t": curves}, np.zeros(len(ends), np.int64), 200, shared=Shared(file, conversation))["t"]
    assert np.isfinite(drawn).all()
    assert (drawn >= 0).all()
    assert (drawn <= 1000 * len(ends) + 1e-6).all()


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.6, 0.6), (float("nan"), 0.0)])
def test_shares_that_are_none_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="together at most 1"):
        Shared(*shares)
