"""What comes after the networks, as a PyTorch module to trace: mixture, calibration, tokens.

The definitions are `mope.predictor.mixture` and `.calibration`, in numpy; here they are once more, so that a graph
holds them too. tests/export compares both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mope.predictor.calibration import HIGH, LOW
from mope.predictor.mixture import TAIL

MOST_LOG = 20.0
Answer = tuple[Tensor, Tensor, Tensor, Tensor]


class Tail(nn.Module):
    """Expert quantiles of log1p(length) [B, 3, K] (soft) or [B, K] (hard) and bucket probabilities [B, 3] into
    tokens [B], low [B], high [B] and quantiles [B, K], in tokens.

    `shifts` [3][2] are the calibration's moves of both ends for each predicted bucket.
    """

    levels: Tensor
    shifts: Tensor

    def __init__(self, levels: Sequence[float], shifts: Sequence[Sequence[float]], soft: bool) -> None:
        super().__init__()
        self.soft = soft
        self.places = [list(levels).index(level) for level in (LOW, 0.5, HIGH)]
        self.register_buffer("levels", torch.tensor(levels))
        self.register_buffer("shifts", torch.tensor(shifts))

    def forward(self, logs: Tensor, probabilities: Tensor) -> Answer:
        if self.soft:
            logs = mix(logs, probabilities, self.levels)
        low, middle, high = (logs[:, place] for place in self.places)
        moves = self.shifts[probabilities.argmax(1)]
        ends = torch.minimum(low + moves[:, 0], middle), torch.maximum(high + moves[:, 1], middle)
        return _tokens(middle), _tokens(ends[0]), _tokens(ends[1]), _tokens(logs)


def mix(knots: Tensor, probabilities: Tensor, levels: Tensor) -> Tensor:
    """Quantiles [B, K] of the mixture of experts' quantiles [B, 3, K]; see `mope.predictor.mixture.mix`."""
    first, last = knots[..., :1], knots[..., -1:]
    below = first - TAIL * (knots[..., 1:2] - first)
    above = last + TAIL * (last - knots[..., -2:-1])
    full = torch.cat([below, knots, above], dim=-1)
    ends = torch.cat([levels.new_zeros(1), levels, levels.new_ones(1)])
    at = full.flatten(1).sort(dim=1).values  # [B, G]
    start, step = full[..., :-1], (full[..., 1:] - full[..., :-1]).clamp(min=1e-9)
    # [B, 3, G, K + 1]: every place against every piece of every expert
    share = ((at[:, None, :, None] - start[:, :, None, :]) / step[:, :, None, :]).clamp(0, 1)
    total = ((share @ (ends[1:] - ends[:-1])) * probabilities[:, :, None]).sum(1)
    return _inverse(at, total, levels)


def _inverse(at: Tensor, total: Tensor, levels: Tensor) -> Tensor:
    above = (total[:, :, None] < levels).sum(1).clamp(1, at.shape[1] - 1)
    x0, x1 = at.gather(1, above - 1), at.gather(1, above)
    y0, y1 = total.gather(1, above - 1), total.gather(1, above)
    return x0 + ((levels - y0) / (y1 - y0).clamp(min=1e-12)).clamp(0, 1) * (x1 - x0)


def _tokens(logs: Tensor) -> Tensor:
    return torch.expm1(logs.clamp(max=MOST_LOG)).clamp(min=0)
