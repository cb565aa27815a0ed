"""An expert: the upper part of the encoder, then a head that reads text, features and served model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mope.predictor.config import BundleConfig
from mope.predictor.encoder import Stack
from mope.types import BUCKETS

WIDTH = 128  # features after their own small network
MODEL_WIDTH = 32
HEAD_WIDTH = 256


class Head(nn.Module):
    """Pooled text [T, 2H], features [B, F] and served model [B] into `outputs` numbers [B, outputs].

    Features are put on a signed log scale and standardised; a missing one (NaN) becomes the mean and raises a
    flag of its own, so "missing" is learned. The model embedding starts at zero: a model that is seldom or never
    seen stays with the population.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, hidden: int, features: int, models: int, outputs: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.facts = nn.Sequential(
            nn.Linear(2 * features, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU()
        )
        self.model = nn.Embedding(models + 1, MODEL_WIDTH)
        nn.init.zeros_(self.model.weight)
        self.mix = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * hidden + WIDTH + MODEL_WIDTH, HEAD_WIDTH),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.out = nn.Linear(HEAD_WIDTH, outputs)
        nn.init.zeros_(self.out.weight)

    def forward(self, pooled: Tensor, text: Tensor, features: Tensor, model: Tensor) -> Tensor:
        gone = torch.isnan(features)
        known = torch.where(gone, torch.zeros_like(features), features)
        level = (torch.sign(known) * torch.log1p(torch.abs(known)) - self.mean) / self.scale
        level = torch.where(gone, torch.zeros_like(level), level).clamp(-6, 6)
        facts = self.facts(torch.cat([level, gone.to(level.dtype)], dim=1))
        out: Tensor = self.out(self.mix(torch.cat([pooled[text], facts, self.model(model)], dim=1)))
        return out


class Expert(nn.Module):
    """Layers from `first` up, mean and first-token pooling, and a head.

    As a regressor (`quantiles` true) the outputs are log1p(length) at each level, [B, K], rising by
    construction; as a router they are the scores of the buckets, [B, 3].
    """

    def __init__(
        self, config: BundleConfig, first: int, *, quantiles: bool = True, dropout: float = 0.1
    ) -> None:
        super().__init__()
        encoder = config.encoder
        outputs = len(config.quantiles) if quantiles else len(BUCKETS)
        self.quantiles = quantiles
        self.encoder = Stack(encoder, first, encoder.num_hidden_layers, dropout)
        self.head = Head(encoder.hidden_size, len(config.features), len(config.models), outputs, dropout)

    def forward(
        self, x: Tensor, segments: Tensor, mask: Tensor, text: Tensor, features: Tensor, model: Tensor
    ) -> Tensor:
        hidden = self.encoder(x, segments, mask).float()
        seen = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = torch.cat([(hidden * seen).sum(1) / seen.sum(1), hidden[:, 0]], dim=1)
        out: Tensor = self.head(pooled, text, features, model).float()
        return rising(out) if self.quantiles else out


def rising(raw: Tensor) -> Tensor:
    """Numbers that never fall along the last axis: the first, then steps made positive by softplus."""
    return torch.cumsum(torch.cat([raw[:, :1], functional.softplus(raw[:, 1:])], dim=1), dim=1)
