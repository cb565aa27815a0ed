"""What the operations read and write. Letters as in `reference`; weights are stacked over the experts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-12


@dataclass(frozen=True)
class Dense:
    """A linear map of every expert: weight [E, N, K], bias and sums (of the weight's rows) FP32 [E, N].

    `sums` is there where the input comes unnormalised (`fold`).
    """

    weight: Tensor
    bias: Tensor
    sums: Tensor | None = None


@dataclass(frozen=True)
class Affine:
    """Scale and shift of a LayerNorm of every expert, FP32 [E, H]."""

    gamma: Tensor
    beta: Tensor


@dataclass(frozen=True)
class Moments:
    """FP32 [T, P, 2]: mean and sum of squared distances from it, of every `tile` columns of a row."""

    values: Tensor
    tile: int

    def whole(self, width: int) -> tuple[Tensor, Tensor]:
        """Mean and 1 / deviation of whole rows, each [T, 1] (Chan's formula for joining parts)."""
        starts = torch.arange(0, width, self.tile, device=self.values.device)
        count = (width - starts).clamp(max=self.tile).float()
        means, squares = self.values.unbind(-1)
        mean = (means * count).sum(1, keepdim=True) / width
        variance = (squares + count * (means - mean) ** 2).sum(1, keepdim=True) / width
        return mean, torch.rsqrt(variance + EPS)


@dataclass(frozen=True)
class Tables:
    """Embeddings of every expert: words [E, V, H], places [E, L, H], segments [E, G, H], and the norm above them."""

    words: Tensor
    places: Tensor
    segments: Tensor
    affine: Affine


@dataclass(frozen=True)
class HeadWeights:
    """Heads of every expert, all FP32: see `mope.predictor.expert.Head` for what each is.

    mean, scale [E, F]; facts1 [E, D, 2F], facts2 [E, D, D]; models [E, M, C]; mix [E, W, 2H + D + C]; out [E, Q, W];
    biases b_*; rising int32 [E]: whether an expert's outputs are quantiles; affine the norm above the encoder.
    """

    mean: Tensor
    scale: Tensor
    facts1: Tensor
    b_facts1: Tensor
    facts2: Tensor
    b_facts2: Tensor
    models: Tensor
    mix: Tensor
    b_mix: Tensor
    out: Tensor
    b_out: Tensor
    rising: Tensor
    affine: Affine


@dataclass(frozen=True)
class HeadRows:
    """What each of R rows reads: a sequence, an expert, a row of features and models. Sequence -1 is padding."""

    sequence: Tensor
    expert: Tensor
    source: Tensor
    features: Tensor
    model: Tensor


@dataclass(frozen=True)
class Route:
    """Rows sent to experts: chances FP32 [B, 3], and the packed batch in which each row goes through its expert.

    rows int32 [T'] (which token stands at each place), cu [B + 1], offsets [E + 1], sequence and expert [B].
    """

    chances: Tensor
    rows: Tensor
    cu: Tensor
    offsets: Tensor
    sequence: Tensor
    expert: Tensor
