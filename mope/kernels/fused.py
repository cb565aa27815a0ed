"""The kernels under one roof: the same six names as `mope.kernels.reference`."""

from __future__ import annotations

from mope.kernels.attention import attention
from mope.kernels.embedding import embed
from mope.kernels.head import head
from mope.kernels.linear import linear, residual_linear
from mope.kernels.route import route

__all__ = ["attention", "embed", "head", "linear", "residual_linear", "route"]
