"""On a GPU: the same kernels against the same references at real sizes, and passes as CUDA graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from mope.data.synthetic import synthetic
from mope.kernels import fused, linear, reference
from mope.kernels.operands import Affine, Moments
from mope.kernels.tiles import Tile
from mope.predictor.bundle import MoPE
from mope.predictor.engine import Engine
from mope.predictor.graphs import Buckets
from mope.predictor.layout import ENCODER_ROUTER
from mope.predictor.made_up import SHAPES, made_up_config, made_up_inputs, made_up_networks
from mope.predictor.packing import pack
from mope.predictor.stacks import assembled
from mope.types import BUCKETS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
# Rounding to 11 and 8 bits of mantissa; FP32 differs by the order of its sums.
RELATIVE = {torch.float32: 1e-5, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
SIZES = [(1, 768, 768), (63, 768, 3072), (1023, 384, 1152), (4099, 768, 2304)]


def near(got: torch.Tensor, want: torch.Tensor) -> None:
    assert torch.allclose(got.float(), want.float(), rtol=RELATIVE[want.dtype], atol=2 * RELATIVE[want.dtype])


@pytest.fixture(autouse=True)
def exact() -> None:
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False


def parts(tokens: int) -> torch.Tensor:
    """Three experts: a third, none, the rest."""
    return torch.tensor([0, tokens // 3, tokens // 3, tokens], dtype=torch.int32, device="cuda")


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize(("tokens", "k", "n"), SIZES)
def test_linear(tokens, k, n, dtype):
    x = (1 + torch.randn(tokens, k, device="cuda")).to(dtype)
    norm = Affine(1 + 0.3 * torch.randn(3, k, device="cuda"), torch.randn(3, k, device="cuda"))
    dense = reference.fold(
        torch.randn(3, n, k, device="cuda") * k**-0.5, torch.randn(3, n, device="cuda"), norm, dtype
    )
    same = {"norm": reference.moments(x, 128), "gelu": True}
    near(fused.linear(x, dense, parts(tokens), **same), reference.linear(x, dense, parts(tokens), **same))


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize(("tokens", "n", "k"), SIZES)
def test_residual_linear(tokens, n, k, dtype):
    x, residual = (torch.randn(tokens, size, device="cuda").to(dtype) for size in (k, n))
    dense = reference.fold(
        torch.randn(3, n, k, device="cuda") * k**-0.5, torch.randn(3, n, device="cuda"), None, dtype
    )
    affine = Affine(torch.randn(3, n, device="cuda"), torch.randn(3, n, device="cuda"))
    rows = torch.randint(0, tokens, (tokens,), dtype=torch.int32, device="cuda")
    same = {"norm": reference.moments(residual, 128), "affine": affine, "rows": rows}
    for _ in range(3):  # counters are left at zero
        got, found = fused.residual_linear(x, dense, parts(tokens), residual, **same)
        near(got, reference.residual_linear(x, dense, parts(tokens), residual, **same)[0])
        own = reference.moments(got, n).whole(n)
        for mine, true in zip(found.whole(n), own, strict=True):
            assert torch.allclose(mine, true, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("split", [2, 3, 4, 6])
def test_a_split_sum_does_not_depend_on_who_comes_last(split):
    x = torch.randn(300, 3072, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(3, 768, 3072, device="cuda")
    dense = reference.fold(weight, torch.randn(3, 768, device="cuda"), None, x.dtype)
    outs = []
    for _ in range(20):
        y = torch.empty(300, 768, device="cuda", dtype=x.dtype)
        linear.launch_linear(x, dense, parts(300), y, Tile(64, 32, 64, split=split))
        outs.append(y)
    assert all(torch.equal(outs[0], y) for y in outs)


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize(("heads", "size"), [(12, 64), (12, 32), (4, 16)])
def test_attention(heads, size, dtype):
    cu = torch.tensor([0, 1, 1, 129, 641], dtype=torch.int32, device="cuda")
    qkv = torch.randn(700, 3 * heads * size, device="cuda").to(dtype)
    near(fused.attention(qkv, cu, heads, 512)[:641], reference.attention(qkv, cu, heads, 512)[:641])


@pytest.mark.parametrize("shared", [0, 3])
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 2e-4), (torch.float16, 0.02), (torch.bfloat16, 0.15)]
)
def test_a_whole_pass(dtype, error, shared):
    """Six layers, three experts and a router, against the reference in FP32; outputs are of size 1."""
    config = made_up_config(SHAPES["minilm"], shared)
    names = [*(["trunk"] if shared else []), *BUCKETS, ENCODER_ROUTER]
    networks = made_up_networks(config, names, "cuda")
    for name in (*BUCKETS, ENCODER_ROUTER):
        torch.nn.init.normal_(networks[name].head.out.weight, std=0.1)
    states = {name: module.state_dict() for name, module in networks.items()}
    device = torch.device("cuda")
    inputs = made_up_inputs([128, 1, 63, 512, 40], config)
    given = pack(inputs, np.arange(5), np.tile([0, 1, 2, 3], (5, 1)), 4)
    fast = Engine(fused, assembled(states, config, dtype, device))
    slow = Engine(reference, assembled(states, config, torch.float32, device))
    buffers = Buckets(device)
    first = buffers.run("answers", fast.answers, given)["out"][:20]
    again = buffers.run("answers", fast.answers, given)["out"][:20]
    assert np.array_equal(first, again)  # a graph answers as its capture did
    with torch.inference_mode():
        host = {name: torch.from_numpy(array).to(device) for name, array in given.arrays.items()}
        want = slow.answers(host, replace(given.size, longest=512))["out"].cpu().numpy()
    assert np.abs(first - want).max() < error


def test_forecasts_of_the_bundle(tiny: Path):
    requests = synthetic(40, seed=5).requests
    slow = MoPE.from_pretrained(tiny, backend="torch").predict(requests)
    fast = MoPE.from_pretrained(tiny, backend="triton").predict(requests)
    for want, got in zip(slow, fast, strict=True):
        assert got.tokens == pytest.approx(want.tokens, rel=0.05, abs=2.0)


def test_a_pass_waits_only_for_its_result(tiny: Path):
    bundle = MoPE.from_pretrained(tiny, backend="triton")
    requests = synthetic(8, seed=5).requests
    bundle.predict(requests)
    (bucket,) = bundle.backend.buckets.kept.values()
    torch.cuda.set_sync_debug_mode("error")
    try:
        bucket._pass()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_moments_of_wide_rows():
    x = 5 + torch.randn(100, 768, device="cuda")
    mean, scale = Moments(reference.moments(x, 128).values, 128).whole(768)
    assert torch.allclose(mean, x.mean(1, keepdim=True), atol=1e-5)
    assert torch.allclose(scale, 1 / x.std(1, keepdim=True, correction=0), rtol=1e-4)
