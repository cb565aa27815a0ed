"""Fused kernels of the experts, one op per file; `reference` says in plain PyTorch what each must compute.

A batch is packed without padding: `x [T, H]` holds the tokens of all sequences one after another, `cu [S + 1]` cuts
it into sequences, `offsets [E + 1]` into the experts' parts. Weights are stacked `[E, ...]`. All of these live on the
device, so that a launch never waits for the host.

A LayerNorm costs no launch of its own. What makes `x` also writes the moments of its rows, tile by tile; what reads
`x` next multiplies by weights that gamma is folded into, and puts mean and deviation right in its epilogue:
LN(x) W^T + b = (x W'^T - mean * sum(W')) / deviation + (W beta + b), W' = W * gamma.
"""

from __future__ import annotations

from importlib.util import find_spec


def missing() -> str:
    """Why the kernels cannot run here, in words; empty where they can (a GPU, or Triton's interpreter)."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    import torch

    from mope.kernels.launch import interpreted

    if torch.cuda.is_available() or interpreted():
        return ""
    return "no GPU is at hand"
