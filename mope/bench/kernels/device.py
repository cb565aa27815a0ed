"""What is measured on: the device, its datasheet where it is known, and versions."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import torch

from mope.kernels import missing
from mope.kernels.roofline import CARDS, Card
from mope.machine import machine

PACKAGES = ("torch", "triton", "onnxruntime", "onnxruntime-gpu", "transformers", "numpy")


def device() -> torch.device:
    """The GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def facts() -> dict[str, object]:
    """Machine, card, driver and versions, the load before, and why kernels cannot run, where they cannot."""
    found: dict[str, object] = dict(machine())
    found["threads"] = torch.get_num_threads()
    found["omp_num_threads"] = os.environ.get("OMP_NUM_THREADS", "")
    found["versions"] = {name: version_of(name) for name in PACKAGES if version_of(name)}
    found["kernels"] = missing() or "run"
    if torch.cuda.is_available():
        props = torch.cuda.get_device_properties(0)
        found["card"] = torch.cuda.get_device_name(0)
        found["card_memory_gib"] = round(props.total_memory / 2**30, 1)
        found["multiprocessors"] = props.multi_processor_count
        found["cuda"] = torch.version.cuda or torch.version.hip
    return found


def card() -> tuple[str, Card] | None:
    """The datasheet of the GPU at hand, if it is one of `CARDS`."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name(0)
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    for known in CARDS:
        model, _, kind = known.partition("-")
        fits = model in name and (not kind.endswith("GB") or abs(float(kind[:-2]) - gib) < 0.2 * gib)
        if fits:
            return known, CARDS[known]
    return None


def version_of(package: str) -> str:
    """Version of an installed package, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
