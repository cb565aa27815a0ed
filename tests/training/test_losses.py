"""Losses against numbers worked by hand, and against their numpy twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mope.predictor.mixture import distribution as numpy_distribution
from mope.training.losses import distribution, length_loss, mixture_loss, pinball, router_loss

LEVELS = torch.tensor([0.1, 0.5, 0.9])


def test_pinball_by_hand():
    forecast, truth, weight = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.5]]), torch.tensor([[1.0]])
    by_hand = (0.1 * 1.5 + 0.5 * 0.5 + 0.1 * 0.5) / 3
    assert torch.isclose(pinball(forecast, truth, weight, LEVELS), torch.tensor(by_hand))


def test_pinball_weighs_answers():
    forecast, truth = torch.tensor([[2.0, 2.0, 2.0]]), torch.tensor([[2.0, 4.0]])
    off = pinball(forecast, truth, torch.tensor([[0.0, 1.0]]), LEVELS)
    assert torch.isclose(off, torch.tensor(2.0 * 0.5))
    assert pinball(forecast, truth, torch.tensor([[1.0, 0.0]]), LEVELS) == 0


def test_length_loss_is_least_at_the_truth():
    truth, weight = torch.tensor([[120.0]]), torch.ones(1, 1)
    at = [
        length_loss(torch.log1p(torch.full((1, 3), x)), truth, weight, LEVELS, 0.5).item()
        for x in (60.0, 120.0, 240.0)
    ]
    assert at[1] == min(at) < 1e-6


def test_router_loss_of_a_sure_and_right_router_is_nothing():
    assert router_loss(torch.tensor([[50.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])) < 1e-6


def test_distribution_is_the_numpy_twin():
    rng = np.random.default_rng(0)
    knots, at = np.sort(rng.normal(size=(4, 3)), axis=1), np.linspace(-4, 4, 9)
    ours = distribution(torch.tensor(at), torch.tensor(knots), LEVELS.double()).numpy()
    theirs = numpy_distribution(np.tile(at, (4, 1)), knots, LEVELS.double().tolist())
    assert np.allclose(ours, theirs)


def test_mixture_loss_prefers_the_right_expert_and_has_a_gradient():
    knots = torch.tensor([[[1.0, 1.1, 1.2], [5.0, 5.1, 5.2]]])
    grid, step = torch.linspace(0, 7, 50), torch.full((50,), 0.14)
    truth, weight = torch.expm1(torch.tensor([[5.1]])), torch.ones(1, 1)

    def loss(scores: list[float]) -> torch.Tensor:
        return mixture_loss(
            torch.tensor([scores], requires_grad=True), knots, truth, weight, LEVELS, grid, step
        )

    assert loss([-5.0, 5.0]) < loss([0.0, 0.0]) < loss([5.0, -5.0])
    scores = torch.zeros(1, 2, requires_grad=True)
    mixture_loss(scores, knots, truth, weight, LEVELS, grid, step).backward()
    assert scores.grad is not None
    assert scores.grad[0, 0] > 0 > scores.grad[0, 1]


def test_mixture_loss_is_least_at_the_true_shares_and_lengths():
    """Half the answers near one length, half near another: no other mixture scores better on average."""
    rng = np.random.default_rng(0)
    near = np.where(rng.random(4000) < 0.5, 3.0, 6.0) + rng.normal(0, 0.1, 4000)
    lengths = torch.expm1(torch.tensor(near, dtype=torch.float32))[None, :]
    weight = torch.full_like(lengths, 1 / lengths.shape[1])
    grid, step = torch.linspace(1, 8, 400), torch.full((400,), 7 / 400)
    spread = 0.1 * 1.2816  # of a normal's 10 % and 90 % points
    truth = torch.tensor([[[c - spread, c, c + spread] for c in (3.0, 6.0)]])

    def loss(scores: list[float], shift: float = 0.0, stretch: float = 1.0) -> float:
        middle = truth[:, :, 1:2]
        knots = middle + (truth - middle) * stretch + shift
        return mixture_loss(torch.tensor([scores]), knots, lengths, weight, LEVELS, grid, step).item()

    best = loss([0.0, 0.0])
    assert best < min(
        loss([0.4, 0.0]), loss([0.0, 0.4]), loss([0.0, 0.0], shift=0.05), loss([0.0, 0.0], shift=-0.05)
    )
    assert best < min(loss([0.0, 0.0], stretch=2.0), loss([0.0, 0.0], stretch=0.3))


def test_gradients_stay_finite_for_absurd_forecasts_and_lengths():
    lengths, weight = torch.tensor([[0.0, 1e6]]), torch.full((1, 2), 0.5)
    grid, step = torch.linspace(0, 9, 30), torch.full((30,), 0.3)
    for level in (-50.0, 0.0, 60.0):
        knots = torch.full((1, 2, 3), level, requires_grad=True)  # knots that coincide, too
        scores = torch.tensor([[80.0, -80.0]], requires_grad=True)
        total = mixture_loss(scores, knots, lengths, weight, LEVELS, grid, step)
        total = total + length_loss(knots[:, 0], lengths, weight, LEVELS, 0.5)
        total.backward()
        assert torch.isfinite(total)
        assert knots.grad is not None
        assert torch.isfinite(knots.grad).all()
        assert scores.grad is not None
        assert torch.isfinite(scores.grad).all()


def test_a_length_at_its_cap_is_only_known_not_to_be_less():
    weight, cap = torch.ones(2, 1), torch.tensor([100.0, 100.0])
    lengths = torch.tensor([[100.0], [40.0]])
    logs = torch.log1p(torch.tensor([[100.0] * 3, [40.0] * 3])).requires_grad_()
    longer = torch.log1p(torch.tensor([[900.0] * 3, [40.0] * 3])).requires_grad_()
    shorter = torch.log1p(torch.tensor([[60.0] * 3, [40.0] * 3])).requires_grad_()
    losses = [length_loss(q, lengths, weight, LEVELS, 0.5, cap) for q in (logs, longer, shorter)]
    assert losses[0].item() == pytest.approx(0, abs=1e-6)
    assert losses[1].item() == pytest.approx(0, abs=1e-6)
    assert losses[2] > 0.01
    assert length_loss(longer, lengths, weight, LEVELS, 0.5) > 0.1
    losses[1].backward()
    assert longer.grad is not None
    assert longer.grad[0].abs().sum() == 0


def test_the_median_of_cut_lengths_is_found():
    """Two of five answers are cut at 100: the median is among the others. With four cut it may be anywhere above."""
    few, many = torch.tensor([[20.0, 50.0, 80.0, 100.0, 100.0]]), torch.tensor([[20.0, *[100.0] * 4]])
    cap, weight = torch.tensor([100.0]), torch.full((1, 5), 0.2)

    def loss(tokens: float, lengths: torch.Tensor, caps: torch.Tensor | None) -> float:
        logs = torch.log1p(torch.full((1, 1), tokens))
        return length_loss(logs, lengths, weight, torch.tensor([0.5]), 0.0, caps).item()

    assert loss(80.0, few, cap) < min(loss(50.0, few, cap), loss(99.0, few, cap))
    assert loss(400.0, many, cap) == pytest.approx(loss(100.0, many, cap))
    assert loss(400.0, many, None) > loss(100.0, many, None)


def test_the_mixture_is_not_scored_above_the_cap():
    grid, step = torch.linspace(0, 7, 71), torch.full((71,), 0.1)
    weight, cap = torch.ones(1, 1), torch.expm1(torch.tensor([4.0]))
    at = [torch.tensor([[[c - 0.1, c, c + 0.1]]]) for c in (4.5, 6.5, 3.0)]
    scores, cut = torch.zeros(1, 1), cap[:, None]
    losses = [mixture_loss(scores, knots, cut, weight, LEVELS, grid, step, cap).item() for knots in at]
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[1] == pytest.approx(0, abs=1e-6)
    assert losses[2] > 0.5
