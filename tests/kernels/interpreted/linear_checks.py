from __future__ import annotations

import pytest
import torch

from mope.kernels import launch, linear, reference
from mope.kernels.operands import Moments
from mope.kernels.tiles import Tile

SMALL = Tile(16, 32, 32)
TILES = {
    "plain": SMALL,
    "split": Tile(32, 32, 32, split=2),
    "halves": Tile(16, 64, 32, halves=2),
    "persist": Tile(16, 32, 32, persist=True),
    "descriptors": Tile(16, 32, 32, tma=True),
    "all": Tile(16, 64, 32, halves=2, persist=True, tma=True),
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# The type changes what is loaded, the tile how it is cut: each way of cutting once, the types on a few of them.
WAYS = [*((name, torch.float32) for name in TILES), ("plain", torch.float16), ("plain", torch.bfloat16),
        ("split", torch.float16), ("all", torch.bfloat16)]  # fmt: skip
# Tokens of three experts: one token, an expert with none, one with all, a prime, more than the tiles of one band.
PARTS = {"one": (0, 1, 0), "none": (33, 0, 30), "all": (0, 0, 67), "odd": (61, 1, 40)}


def offsets_of(parts: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([0, *parts]).cumsum(0).to(torch.int32)


def set_tile(monkeypatch: pytest.MonkeyPatch, tile: Tile) -> None:
    monkeypatch.setattr(linear, "pick", lambda *_: tile)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", PARTS)
def test_linear(parts, dtype, dense, close, monkeypatch):
    set_tile(monkeypatch, SMALL)
    offsets = offsets_of(PARTS[parts])
    n = int(offsets[-1])
    x = torch.randn(n + 3, 40).to(dtype)  # three tokens of padding
    weight = dense(3, 50, 40, dtype)
    got, want = linear.linear(x, weight, offsets), reference.linear(x, weight, offsets)
    close(got[:n], want[:n])
    assert got[n:].isnan().all()


@pytest.mark.parametrize(("tile", "dtype"), WAYS)
def test_linear_over_a_norm_of_gathered_rows_with_gelu(tile, dtype, dense, affine, close, monkeypatch):
    set_tile(monkeypatch, TILES[tile])
    offsets = offsets_of((18, 0, 23))
    x = (2 + 3 * torch.randn(29, 64)).to(dtype)
    rows = torch.randint(0, 29, (41,), dtype=torch.int32)
    norm = affine(3, 64)
    weight, moments = dense(3, 70, 64, dtype, norm), reference.moments(x, 24)
    same = {"norm": moments, "rows": rows, "gelu": True, "capacity": 44}
    got, want = (op.linear(x, weight, offsets, **same) for op in (linear, reference))
    close(got[:41], want[:41])
    assert got[41:].isnan().all()
    # The same from the definition: normalise, multiply, GELU.
    expert = reference.expert_of(offsets)
    plain = reference.normalise(x[rows.long()], Moments(moments.values[rows.long()], 24), norm, expert)
    assert torch.allclose(plain, torch.nn.functional.layer_norm(x[rows.long()].float(), (64,)) * norm.gamma[expert]
                          + norm.beta[expert], atol=1e-4)  # fmt: skip


@pytest.mark.parametrize(("tile", "dtype"), WAYS)
@pytest.mark.parametrize("gathered", [False, True])
def test_residual_linear(gathered, tile, dtype, dense, affine, close, monkeypatch):
    set_tile(monkeypatch, TILES[tile])
    offsets = offsets_of((17, 23, 0))
    x, weight = torch.randn(43, 128).to(dtype), dense(3, 72, 128, dtype)
    residual = (1 + torch.randn(60 if gathered else 43, 72)).to(dtype)
    rows = torch.randint(0, 60, (43,), dtype=torch.int32) if gathered else None
    same = {"norm": reference.moments(residual, 40), "affine": affine(3, 72), "rows": rows}
    got, found = linear.residual_linear(x, weight, offsets, residual, **same)
    want, _ = reference.residual_linear(x, weight, offsets, residual, **same)
    close(got[:40], want[:40])
    assert got[40:].isnan().all()
    own = reference.moments(got[:40], 72).whole(72)
    for mine, true in zip(Moments(found.values[:40], found.tile).whole(72), own, strict=True):
        assert torch.allclose(mine, true, atol=1e-5, rtol=1e-5)
    assert not launch.counters(x.device).any()


def test_residual_without_a_norm(dense, close, monkeypatch):
    set_tile(monkeypatch, SMALL)
    x, residual, weight = torch.randn(5, 32), torch.randn(5, 33), dense(1, 33, 32, torch.float32)
    offsets = offsets_of((5,))
    close(linear.residual_linear(x, weight, offsets, residual)[0],
          reference.residual_linear(x, weight, offsets, residual)[0])  # fmt: skip


def test_a_thousand_tokens(dense, affine, close, monkeypatch):
    set_tile(monkeypatch, Tile(64, 32, 32, persist=True))
    offsets = offsets_of((1, 0, 1022))
    x, norm = torch.randn(1023, 40), affine(3, 40)
    weight, moments = dense(3, 33, 40, torch.float32, norm), reference.moments(x, 40)
    close(linear.linear(x, weight, offsets, norm=moments), reference.linear(x, weight, offsets, norm=moments))


def test_far_from_zero_the_variance_is_still_right(dense, affine, monkeypatch):
    """Parts of a row are joined by their means: the difference of two large sums would be noise."""
    set_tile(monkeypatch, SMALL)
    x, weight = torch.zeros(4, 32), dense(1, 96, 32, torch.float32)
    residual = 1000 + torch.randn(4, 96)
    got, found = linear.residual_linear(x, weight, offsets_of((4,)), residual)
    exact = 1 / got.double().std(1, correction=0, keepdim=True)
    assert torch.allclose(found.whole(96)[1].double(), exact, rtol=1e-3)


def test_no_tokens_at_all_is_no_work(dense, monkeypatch):
    set_tile(monkeypatch, SMALL)
    got = linear.linear(torch.randn(6, 32), dense(2, 32, 32, torch.float32), offsets_of((0, 0)))
    assert got.isnan().all()
