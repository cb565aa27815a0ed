"""Mixtures of quantiles: identities that must hold for any experts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mope.predictor.mixture import TAIL, distribution, mix, with_tails

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
STEPS = arrays(np.float64, (2, 3, 5), elements=st.floats(0.01, 2.0))
WEIGHTS = arrays(np.float64, (2, 3), elements=st.floats(0.01, 1.0))


def knots_of(steps: np.ndarray) -> np.ndarray:
    return np.cumsum(steps, axis=-1)


def shares_of(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=1, keepdims=True)


def test_tails_reach_from_nothing_to_all():
    knots, levels = with_tails(np.array([[1.0, 2.0, 4.0]]), (0.1, 0.5, 0.9))
    assert knots.tolist() == [[1 - TAIL, 1, 2, 4, 4 + 2 * TAIL]]
    assert levels.tolist() == [0, 0.1, 0.5, 0.9, 1]


@given(STEPS)
def test_distribution_at_its_own_knots_is_their_levels(steps: np.ndarray):
    knots = knots_of(steps)[:, 0]
    assert np.allclose(distribution(knots, knots, LEVELS), LEVELS)


@given(STEPS, WEIGHTS)
def test_equal_experts_mix_to_themselves(steps: np.ndarray, weights: np.ndarray):
    knots = np.repeat(knots_of(steps)[:, :1], 3, axis=1)
    assert np.allclose(mix(knots, shares_of(weights), LEVELS), knots[:, 0], atol=1e-6)


@given(STEPS, st.integers(0, 2))
def test_all_weight_on_one_expert_is_that_expert(steps: np.ndarray, chosen: int):
    knots = knots_of(steps)
    assert np.allclose(mix(knots, np.tile(np.eye(3)[chosen], (2, 1)), LEVELS), knots[:, chosen], atol=1e-6)


@given(STEPS, WEIGHTS)
def test_quantiles_of_a_mixture_rise_between_its_experts(steps: np.ndarray, weights: np.ndarray):
    knots = knots_of(steps)
    mixed = mix(knots, shares_of(weights), LEVELS)
    assert (np.diff(mixed, axis=1) >= -1e-9).all()
    assert (mixed >= knots.min(axis=1) - 1e-6).all()
    assert (mixed <= knots.max(axis=1) + 1e-6).all()


def test_two_far_experts_by_hand():
    """Half the mass lies around 1, half around 10: the median is in the gap, the outer quantiles inside each."""
    knots = np.array([[[0.9, 1.0, 1.1], [9.9, 10.0, 10.1]]])
    low, _, high = mix(knots, np.array([[0.5, 0.5]]), (0.25, 0.5, 0.75))[0]
    assert 0.9 <= low <= 1.1
    assert 9.9 <= high <= 10.1
