from __future__ import annotations

import pytest
import torch

from mope.kernels import attention, reference
from mope.kernels.tiles import Tile

# heads, head dimension: those of minilm, bert-base and tiny, and one that is no power of two.
HEADS = [(3, 32), (2, 64), (2, 16), (2, 24)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("heads", "size"), HEADS)
def test_attention(heads, size, dtype, close):
    cu = torch.tensor([0, 1, 1, 38, 101, 101], dtype=torch.int32)  # 1, 0, 37, 63 tokens, and an empty end
    qkv = torch.randn(104, 3 * heads * size).to(dtype)
    qkv[101:] = float("nan")  # padding must not be read
    got, want = attention.attention(qkv, cu, heads, 63), reference.attention(qkv, cu, heads, 63)
    close(got[:101], want[:101])
    assert got[101:].isnan().all()


def test_large_scores_do_not_overflow(close):
    qkv = 30 * torch.randn(40, 3 * 32)
    cu = torch.tensor([0, 40], dtype=torch.int32)
    close(attention.attention(qkv, cu, 1, 40), reference.attention(qkv, cu, 1, 40))


def test_a_long_sequence(close, monkeypatch):
    monkeypatch.setattr(attention, "pick", lambda *_: Tile(128, 128, 0))
    cu, qkv = torch.tensor([0, 1023], dtype=torch.int32), torch.randn(1023, 3 * 32)
    close(attention.attention(qkv, cu, 1, 1023), reference.attention(qkv, cu, 1, 1023))
