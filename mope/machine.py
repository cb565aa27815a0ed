"""What a number was measured on: processor, and how busy it was."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

UNITS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni")  # the vector units that decide a network's speed


def cpu_name() -> str:
    """Number of cores, model name of the processor, vector units."""
    return f"{os.cpu_count()} CPU cores, {_model()}"


def machine() -> dict[str, str | float]:
    """Processor, versions of Python and of what computes, and the load now."""
    return {
        "machine": cpu_name(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("onnxruntime", "numpy")},
        "load_1m": load_1m(),
    }


def load_1m() -> float:
    """The load average of the last minute, NaN where there is none. Above the free cores, times are too long."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def _model() -> str:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
    names = {key.strip(): value.strip() for key, value in fields.items()}
    flags = names.get("flags", "").split()
    return f"{names.get('model name', platform.machine())} ({', '.join(unit for unit in UNITS if unit in flags)})"
