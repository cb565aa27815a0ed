"""The calls that `mope bench kernels` times on a GPU can be made."""

from __future__ import annotations

import pytest
import torch

from mope.bench.kernels.ops import Linear, attention, grouped


@pytest.mark.parametrize("name", ["qkv", "out", "up", "down"])
def test_linear_maps(name, close):
    shape = Linear(name, 64 if name in ("out", "down") else 96, 64)
    work, calls = grouped(shape, 20, (0.8, 0.15, 0.05), torch.float32)
    assert work.flops == 2 * 20 * shape.n * shape.k
    assert len(calls) >= 2
    for name, call in calls.items():
        if "grouped_mm" not in name:
            assert call() is not None


def test_attention_is_that_of_torch(close):
    _, calls = attention(300, 2, 32, torch.float32)
    ours, theirs = calls["triton"](), calls["torch SDPA"]()
    close(ours, theirs.transpose(1, 2).reshape(256, 32))
