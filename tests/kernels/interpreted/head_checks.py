"""The first and the last launch: embeddings and heads."""

from __future__ import annotations

import pytest
import torch

from mope.kernels import embedding, head, launch, reference
from mope.kernels.operands import HeadRows, HeadWeights, Moments, Tables


def some(limit: int, count: int) -> torch.Tensor:
    return torch.randint(0, limit, (count,), dtype=torch.int32)


@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_embed(dtype, gathered, affine, close):
    words, places, segments = (torch.randn(3, size, 72).to(dtype) for size in (50, 20, 2))
    tables = Tables(words, places, segments, affine(3, 72))
    offsets = torch.tensor([0, 9, 9, 13], dtype=torch.int32)
    rows = some(16, 15) if gathered else None
    same = {"rows": rows, "capacity": 15 if gathered else 0}
    args = (some(50, 16), some(2, 16), some(20, 16), tables, offsets)
    got, want = embedding.embed(*args, **same), reference.embed(*args, **same)
    close(got[:13], want[:13])
    assert got[13:].isnan().all()


def weights(experts: int, width: int, features: int, affine, outputs: int = 5) -> HeadWeights:
    r, facts, model, hidden = torch.randn, 16, 8, 32
    return HeadWeights(
        mean=r(experts, features), scale=0.5 + torch.rand(experts, features),
        facts1=0.3 * r(experts, facts, 2 * features), b_facts1=r(experts, facts),
        facts2=0.3 * r(experts, facts, facts), b_facts2=r(experts, facts), models=r(experts, 4, model),
        mix=0.1 * r(experts, hidden, 2 * width + facts + model), b_mix=r(experts, hidden),
        out=0.3 * r(experts, outputs, hidden), b_out=r(experts, outputs),
        rising=torch.tensor([1, 1, 0], dtype=torch.int32), affine=affine(experts, width),
    )  # fmt: skip


@pytest.fixture
def narrow(monkeypatch):
    """Fewer blocks and larger steps than on a GPU: the interpreter pays for each."""
    monkeypatch.setattr(head, "PARTS", 2)
    monkeypatch.setattr(head, "UNITS", 8)
    monkeypatch.setattr(head, "TOKENS", 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_head(dtype, affine, narrow):
    x = (1 + torch.randn(104, 40)).to(dtype)
    norm = reference.moments(x, 16)
    x[101:] = float("nan")
    cu = torch.tensor([0, 1, 38, 101, 101], dtype=torch.int32)
    features = 50 * torch.randn(6, 7)
    features[2, 3:], features[3] = float("nan"), float("nan")
    rows = HeadRows(
        torch.tensor([2, 0, 1, 1, 2, -1], dtype=torch.int32), torch.tensor([0, 2, 1, 0, 2, 0], dtype=torch.int32),
        torch.tensor([5, 3, 2, 2, 0, 0], dtype=torch.int32), features, some(4, 6),
    )  # fmt: skip
    given = weights(3, 40, 7, affine)
    got, want = head.head(x, norm, cu, rows, given), reference.head(x, norm, cu, rows, given)
    assert torch.allclose(got[:5], want[:5], atol=3e-5, rtol=1e-5)  # FP32 from whatever x is
    assert got[5].isnan().all()
    assert (got[[0, 2, 3]].diff(dim=1) >= 0).all()
    assert (got[[1, 4]].diff(dim=1) < 0).any()
    assert not launch.counters(x.device).any()


def test_padding_of_moments_is_not_read(affine, narrow):
    x = torch.randn(9, 40)
    norm = reference.moments(x, 40)
    norm.values[5:] = float("nan")
    rows = HeadRows(some(1, 1), some(1, 1), some(1, 1), torch.randn(1, 7), some(4, 1))
    cu = torch.tensor([0, 5], dtype=torch.int32)
    got = head.head(x, Moments(norm.values, norm.tile), cu, rows, weights(3, 40, 7, affine))
    assert got.isfinite().all()
