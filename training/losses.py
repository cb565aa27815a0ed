"""Losses: pinball for quantiles, cross entropy for the router, and the mixture's ranked probability score.

Targets are [B, S] lengths in tokens, one column a sampled answer, with weights [B, S] that sum to one a row.
`caps` [B] are the limits that answers were cut at, infinite where there was none: all that is known of a length at
its cap is that it is not below it. So forecasts and lengths are compared below the cap only (Powell, 1986: a quantile
of min(y, c) is min(quantile of y, c)), and a forecast above it costs nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mope.predictor.mixture import TAIL

TOKEN_UNIT = 300.0  # tokens that weigh as much as one step of log1p: about the median answer
LOG_LIMIT = 9.0  # expm1 of more would let one wild forecast own the gradient


def pinball(forecast: Tensor, truth: Tensor, weight: Tensor, levels: Tensor) -> Tensor:
    """Pinball loss of quantiles [B, K] at `levels` [K], mean over levels and rows (Koenker and Bassett, 1978)."""
    miss = truth[:, :, None] - forecast[:, None, :]
    loss = torch.maximum(levels * miss, (levels - 1) * miss).mean(-1)
    return (loss * weight).sum() / weight.sum()


def length_loss(
    logs: Tensor,
    lengths: Tensor,
    weight: Tensor,
    levels: Tensor,
    token_loss: float,
    caps: Tensor | None = None,
) -> Tensor:
    """Pinball in log1p(length), and `token_loss` times the same in tokens: MAE is what is reported."""
    if caps is not None:
        logs = torch.minimum(logs, torch.log1p(caps)[:, None])
        lengths = torch.minimum(lengths, caps[:, None])
    loss = pinball(logs, torch.log1p(lengths), weight, levels)
    if token_loss:
        tokens = torch.expm1(logs.clamp(max=LOG_LIMIT)) / TOKEN_UNIT
        loss = loss + token_loss * pinball(tokens, lengths / TOKEN_UNIT, weight, levels)
    return loss


def router_loss(scores: Tensor, shares: Tensor) -> Tensor:
    """Cross entropy against the share [B, 3] of a row's answers that fall into each bucket."""
    return functional.cross_entropy(scores, shares)


def distribution(at: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """Probability of at most `at` [G] under quantiles `knots` [B, K]: [B, G]. Twin of `mixture.distribution`."""
    low = knots[:, :1] - TAIL * (knots[:, 1:2] - knots[:, :1])
    high = knots[:, -1:] + TAIL * (knots[:, -1:] - knots[:, -2:-1])
    full = torch.cat([low, knots, high], dim=1)
    ends = torch.cat([levels.new_zeros(1), levels, levels.new_ones(1)])
    step = full.diff(dim=1).clamp(min=1e-6)[:, None, :]
    share = ((at[None, :, None] - full[:, None, :-1]) / step).clamp(0, 1)
    return share @ ends.diff()


def mixture_loss(
    scores: Tensor,
    knots: Tensor,
    lengths: Tensor,
    weight: Tensor,
    levels: Tensor,
    grid: Tensor,
    step: Tensor,
    caps: Tensor | None = None,
) -> Tensor:
    """Ranked probability score of the mixture (Gneiting and Raftery, 2007) on `grid` [G] with widths `step` [G].

    scores [B, E] are the router's, knots [B, E, K] the experts' quantiles of log1p(length). Points of the grid at or
    above a row's cap are not scored.
    """
    chances = scores.softmax(-1)
    parts = [chances[:, k, None] * distribution(grid, knots[:, k], levels) for k in range(knots.shape[1])]
    total = torch.stack(parts).sum(0)
    below = (torch.log1p(lengths)[:, :, None] <= grid).to(knots.dtype)
    if caps is not None:
        step = step * (grid < torch.log1p(caps)[:, None, None]).to(step.dtype)
    score = ((total[:, None, :] - below) ** 2 * step).sum(-1)
    return (score * weight).sum() / weight.sum()
