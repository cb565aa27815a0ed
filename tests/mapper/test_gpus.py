"""GPUs as data."""

from __future__ import annotations

import dataclasses
import math

import pytest

from mope.errors import ConfigError
from mope.mapper import gpus


def test_an_h100_has_the_numbers_of_its_datasheet() -> None:
    h100 = gpus.known("H100-sxm")
    assert (h100.bandwidth, h100.flops_bf16, h100.link_bandwidth) == (3.35e12, 989.4e12, 450e9)
    assert (h100.memory_bytes, h100.units) == (81559 * 2**20, 132)
    assert h100.origin.startswith("datasheet")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("nvidia A100-SXM4-80GB", "A100-80g"),
        ("a100", "A100-80g"),
        ("A100_PCIE_40GB", "A100-40g-pcie"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA H100 80GB HBM3", "H100-sxm"),
        ("AMD Instinct MI300X", "MI300X"),
    ],
)
def test_other_spellings_are_known(spelling: str, name: str) -> None:
    assert gpus.known(spelling).name == name


def test_an_unknown_gpu_lists_the_near_and_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'H1000'.*RTX-4090.*nearest: .*h100-sxm.*datasheet"):
        gpus.known("H1000")


@pytest.mark.parametrize("name", gpus.names())
def test_every_shipped_gpu_is_whole_and_plausible(name: str) -> None:
    gpu = gpus.known(name)
    assert 2e10 < gpu.memory_bytes < 3e11
    assert 2e11 < gpu.bandwidth < 1e13
    assert 50 < gpu.units < 400
    # A weight read from memory feeds tens to hundreds of operations on every GPU of this kind.
    assert 100 < gpu.flops_bf16 / gpu.bandwidth < 500
    assert gpu.flops_fp8 is None or math.isclose(gpu.flops_fp8, 2 * gpu.flops_bf16, rel_tol=0.02)
    assert gpu.link_bandwidth < gpu.bandwidth
    assert gpu.dollars_per_second is None or 0 < gpu.dollars_per_second * 3600 < 20
    assert (gpu.usd_per_hour is None) == (gpu.priced == "")
    assert gpus.known(gpu.name.lower()) == gpu


def test_no_spelling_stands_for_two_gpus() -> None:
    table = gpus.read_shipped("gpus.json")["gpus"]
    spellings = [
        *map(str.lower, table),
        *(word for entry in table.values() for word in entry.get("also", ())),
    ]
    assert len(spellings) == len(set(spellings))
    assert all(gpus.known(word).name for word in spellings)


@pytest.mark.parametrize("key", ["bandwidth", "memory_bytes", "units", "flops_fp8", "usd_per_hour"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_absurd_numbers_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{key} = {value}"):
        dataclasses.replace(gpus.known("L4"), **{key: value})
