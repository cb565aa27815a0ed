"""What the launchers share: the architecture, new buffers, how a type is multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import triton
from torch import Tensor


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1 when they were imported)."""
    return bool(triton.knobs.runtime.interpret)


@cache
def architecture(device: torch.device) -> str:
    """Name of a device's architecture as in tiles.json: sm_90, gfx942, or interpreter."""
    if device.type == "cpu":
        assert interpreted(), "kernels need a GPU or the interpreter"
        return "interpreter"
    found = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return str(found.gcnArchName).partition(":")[0]
    return f"sm_{found.major}{found.minor}"


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a device; a few in the interpreter, so that programs take several tiles there."""
    if device.type == "cpu":
        return 3
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A new buffer on the device of `like`. Tests fill it with NaN to see what a kernel leaves unwritten."""
    return torch.empty(tuple(shape), dtype=dtype or like.dtype, device=like.device)


def multiply_mode(like: Tensor) -> dict[str, object]:
    """How `tl.dot` must multiply: full FP32; and the interpreter cannot multiply BF16, which is widened there."""
    wide = interpreted() and like.dtype == torch.bfloat16
    return {"UPCAST": wide, "PRECISION": "ieee" if like.dtype == torch.float32 else "tf32"}


def ceil_div(a: int, b: int) -> int:
    """Whole parts of `b` that cover `a`."""
    return -(-a // b)


@cache
def counters(device: torch.device) -> Tensor:
    """Zeros int32 [65536] in which blocks of one launch count each other; every launch leaves zeros behind.

    Launches that count must follow each other on one stream.
    """
    return torch.zeros(1 << 16, dtype=torch.int32, device=device)
