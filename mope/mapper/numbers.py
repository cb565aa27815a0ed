"""The few functions that formulas need on floats and on arrays alike; everything else is an operator.

A float never meets NumPy: a forecast of one request must cost microseconds, and a NumPy call on one number costs as
much as a whole formula.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Number: TypeAlias = float | Floats


def ceil(x: Number) -> Number:
    """The smallest whole number not below x, elementwise."""
    return np.ceil(x) if isinstance(x, np.ndarray) else -(-x // 1.0)


def floor(x: Number) -> Number:
    """The largest whole number not above x, elementwise."""
    return np.floor(x) if isinstance(x, np.ndarray) else x // 1.0


def where(condition: bool | npt.NDArray[np.bool_], yes: Number, no: Number) -> Number:
    """`yes` where the condition holds, else `no`, elementwise."""
    return np.where(condition, yes, no) if isinstance(condition, np.ndarray) else (yes if condition else no)


def most(x: Number, y: Number) -> Number:
    """The larger of the two, elementwise."""
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        return np.maximum(x, y)
    return x if x > y else y


def least(x: Number, y: Number) -> Number:
    """The smaller of the two, elementwise."""
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        return np.minimum(x, y)
    return x if x < y else y
