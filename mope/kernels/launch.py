"""What the launchers share: the architecture, new buffers, how a type is multiplied, and launches as a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """One launch as it would have been: kernel, grid, arguments by position, and the rest by name."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """Launches for an architecture that need not be at hand, from tensors without data (device "meta")."""

    arch: str
    processors: int = 132
    launches: list[Launch] = field(default_factory=list)


_record: ContextVar[Record | None] = ContextVar("record", default=None)


@contextmanager
def recording(arch: str) -> Iterator[Record]:
    """Inside, launches are noted for `arch` and not run: to count them, or to compile them for it."""
    record = Record(arch)
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


def run(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launch a kernel, or note it."""
    record = _record.get()
    if record is None:
        kernel[grid](*args, **options)
    else:
        record.launches.append(Launch(kernel, grid, args, options))


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1 when they were imported)."""
    return bool(triton.knobs.runtime.interpret)


def architecture(device: torch.device) -> str:
    """Name of a device's architecture as in tiles.json: sm_90, gfx942, or interpreter."""
    record = _record.get()
    return _architecture(device) if record is None else record.arch


@cache
def _architecture(device: torch.device) -> str:
    if device.type == "cpu":
        assert interpreted(), "kernels need a GPU or the interpreter"
        return "interpreter"
    found = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return str(found.gcnArchName).partition(":")[0]
    return f"sm_{found.major}{found.minor}"


def processors(device: torch.device) -> int:
    """Multiprocessors of a device; a few in the interpreter, so that programs take several tiles there."""
    record = _record.get()
    if record is not None:
        return record.processors
    return 3 if device.type == "cpu" else int(torch.cuda.get_device_properties(device).multi_processor_count)


def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A new buffer on the device of `like`. Tests fill it with NaN to see what a kernel leaves unwritten."""
    return torch.empty(tuple(shape), dtype=dtype or like.dtype, device=like.device)


@cache
def counters(device: torch.device) -> Tensor:
    """Zeros int32 [65536] in which blocks of one launch count each other; every launch leaves zeros behind.

    Launches that count must follow each other on one stream.
    """
    return torch.zeros(1 << 16, dtype=torch.int32, device=device)


def multiply_mode(like: Tensor) -> dict[str, object]:
    """How `tl.dot` must multiply: full FP32; and the interpreter cannot multiply BF16, which is widened there."""
    wide = like.device.type == "cpu" and like.dtype == torch.bfloat16
    return {"UPCAST": wide, "PRECISION": "ieee" if like.dtype == torch.float32 else "tf32"}


def ceil_div(a: int, b: int) -> int:
    """Whole parts of `b` that cover `a`."""
    return -(-a // b)
