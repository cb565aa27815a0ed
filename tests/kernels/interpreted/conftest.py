"""What the checks of kernels share. They run under TRITON_INTERPRET=1, from `tests/kernels/test_interpreted.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from mope.kernels import launch, reference
from mope.kernels.operands import Affine, Dense

# FP32 differs by the order of its sums. In 16 bits a result near a tie is rounded the other way, one unit in the last
# place; the interpreter truncates BF16 where a GPU rounds, which is one unit as well.
TOLERANCE = {
    torch.float32: (2e-5, 1e-5),
    torch.float16: (1e-3, 2.0**-10),
    torch.bfloat16: (2e-3, 2.0**-7),
}
Close = Callable[[Tensor, Tensor], None]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new buffer is full of NaN (or of -7): what a kernel does not write is seen."""
    assert launch.interpreted()

    def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        kind = dtype or like.dtype
        return torch.full(tuple(shape), float("nan") if kind.is_floating_point else -7, dtype=kind)

    monkeypatch.setattr(launch, "empty", empty)
    torch.manual_seed(0)


@pytest.fixture
def close() -> Close:
    """Asserts that two tensors are equal up to what their type allows."""

    def check(got: Tensor, want: Tensor) -> None:
        atol, rtol = TOLERANCE[want.dtype]
        assert got.shape == want.shape
        assert torch.allclose(got.float(), want.float(), atol=atol, rtol=rtol)

    return check


@pytest.fixture
def dense() -> Callable[..., Dense]:
    """Random maps of E experts from K to N, over a norm if `norm` is given."""

    def make(experts: int, n: int, k: int, dtype: torch.dtype, norm: Affine | None = None) -> Dense:
        return reference.fold(torch.randn(experts, n, k) * k**-0.5, torch.randn(experts, n), norm, dtype)

    return make


@pytest.fixture
def affine() -> Callable[[int, int], Affine]:
    """Random scales and shifts of E experts."""
    return lambda experts, width: Affine(
        1 + 0.3 * torch.randn(experts, width), 0.5 * torch.randn(experts, width)
    )
