"""Each operation alone on the GPU, against the floor of its card and what PyTorch has for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch.nn import functional

from mope.bench.kernels.device import card, device
from mope.kernels import reference, roofline
from mope.kernels.operands import Affine, Dense
from mope.kernels.roofline import Work

EXPERTS = 3
SHARES = {"balanced": (1 / 3, 1 / 3, 1 / 3), "skewed": (0.8, 0.15, 0.05)}
TOKENS = (48, 384, 3072, 12288, 49152)  # of all experts together: one short text to a large batch
Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Linear:
    """One of the grouped linear maps of BERT-base."""

    name: str
    n: int
    k: int


LINEARS = (
    Linear("qkv", 2304, 768),
    Linear("out", 768, 768),
    Linear("up", 3072, 768),
    Linear("down", 768, 3072),
)


def time_ops(dtype: torch.dtype = torch.bfloat16) -> list[dict[str, object]]:
    """Microseconds, TFLOP/s, GB/s and share of the floor of every operation; needs a GPU and Triton."""
    rows = []
    for tokens in TOKENS:
        for spread, shares in SHARES.items():
            for linear in LINEARS:
                rows.append(_row(linear.name, tokens, spread, *grouped(linear, tokens, shares, dtype)))
        rows.append(_row("attention", tokens, "texts of 128", *attention(tokens, 12, 768, dtype)))
    return rows


def _row(name: str, tokens: int, spread: str, work: Work, calls: Calls) -> dict[str, object]:
    """One line: every call by `triton.testing.do_bench`, which clears the L2 cache between calls."""
    import triton

    row: dict[str, object] = {"op": name, "tokens": tokens, "spread": spread}
    known = card()
    for key, call in calls.items():
        try:
            us = 1e3 * float(triton.testing.do_bench(call, warmup=10, rep=50, return_mode="median"))
        except (RuntimeError, NotImplementedError) as error:  # torch._grouped_mm is not on every card
            row[key] = {"skipped": str(error)[:120]}
            continue
        found = {"us": us, "tflops": work.flops / us / 1e6, "gb_s": work.bytes / us / 1e3}
        if known is not None:
            found["share_of_floor"] = work.floor_us(known[1]) / us
            found["share_of_peak"] = work.flops / us / 1e-6 / known[1].flops_s
            found["share_of_bandwidth"] = work.bytes / us / 1e-6 / known[1].bytes_s
        row[key] = {name: float(f"{value:.4g}") for name, value in found.items()}
    return row


def grouped(shape: Linear, tokens: int, shares: tuple[float, ...], dtype: torch.dtype) -> tuple[Work, Calls]:
    """A grouped map with everything it does in a layer, against PyTorch's products alone."""
    from mope.kernels import fused

    n, k, where = shape.n, shape.k, device()
    cuts = torch.tensor([0.0, *shares]).cumsum(0).mul(tokens).round().to(torch.int32).to(where)
    x = torch.randn(tokens, k, device=where, dtype=dtype)
    weight = torch.randn(EXPERTS, n, k, device=where, dtype=dtype) * k**-0.5
    bias = torch.zeros(EXPERTS, n, device=where)
    affine = Affine(torch.ones(EXPERTS, k, device=where), torch.zeros(EXPERTS, k, device=where))
    residual = shape.name in ("out", "down")
    if residual:
        dense, beside = Dense(weight, bias), torch.randn(tokens, n, device=where, dtype=dtype)
        norm = reference.moments(beside, 128)
        wide = Affine(torch.ones(EXPERTS, n, device=where), torch.zeros(EXPERTS, n, device=where))
        ours: Callable[[], object] = partial(
            fused.residual_linear, x, dense, cuts, beside, norm=norm, affine=wide
        )
    else:
        dense, norm = reference.fold(weight, bias, affine, dtype), reference.moments(x, 128)
        ours = partial(fused.linear, x, dense, cuts, norm=norm, gelu=shape.name == "up")
    ends = cuts[1:].contiguous()
    edges = cuts.tolist()
    parts = [(x[a:b], weight[e].T) for e, (a, b) in enumerate(pairwise(edges)) if b > a]
    calls: Calls = {
        "triton, with norm and epilogue": ours,
        "torch.mm each expert, product alone": lambda: [torch.mm(a, b) for a, b in parts],
    }
    if hasattr(torch, "_grouped_mm"):
        calls["torch._grouped_mm, product alone"] = lambda: torch._grouped_mm(
            x, weight.transpose(1, 2), offs=ends
        )
    return roofline.linear(tokens, n, k, EXPERTS, residual), calls


def attention(tokens: int, heads: int, width: int, dtype: torch.dtype) -> tuple[Work, Calls]:
    """Texts of 128 tokens against PyTorch's attention of as many texts."""
    from mope.kernels import fused

    size = min(128, tokens)
    texts = tokens // size
    qkv = torch.randn(texts * size, 3 * width, device=device(), dtype=dtype)
    cu = torch.arange(0, texts * size + 1, size, device=device(), dtype=torch.int32)
    q, k, v = qkv.view(texts, size, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
    calls: Calls = {
        "triton": lambda: fused.attention(qkv, cu, heads, size),
        "torch SDPA": lambda: functional.scaled_dot_product_attention(q, k, v),
    }
    return roofline.attention([size] * texts, width), calls
