"""GPUs as data: what their datasheets promise. What a program reaches of it is fitted (`mope.mapper.fit`)."""

from __future__ import annotations

from dataclasses import dataclass

from mope.errors import ConfigError
from mope.mapper.names import close_names, read_shipped

MAKERS = ("nvidia", "amd", "tesla", "geforce", "instinct")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: bytes, bytes per second, operations per second (dense), watts.

    `units` are its streaming multiprocessors or compute units; `bandwidth` is that of its memory, `link_bandwidth`
    what it sends to its peers, in one direction.
    `flops_fp8` is None where it has no such units, `usd_per_hour` where no public price
    is known; `priced` says whose price that is and when it was read.
    """

    name: str
    memory_bytes: int
    units: int
    bandwidth: float
    flops_bf16: float
    flops_fp8: float | None
    link_bandwidth: float
    link: str
    power_w: float
    usd_per_hour: float | None
    origin: str
    priced: str = ""

    def __post_init__(self) -> None:
        for key in ("memory_bytes", "units", "bandwidth", "flops_bf16", "link_bandwidth", "power_w"):
            self._check(key, getattr(self, key))
        for key in ("flops_fp8", "usd_per_hour"):
            if getattr(self, key) is not None:
                self._check(key, getattr(self, key))

    def _check(self, key: str, value: float) -> None:
        if not 0 < value < 1e18:  # False for NaN
            raise ConfigError(f"GPU {self.name!r}: {key} = {value}", "a positive number below 1e18")

    @property
    def dollars_per_second(self) -> float | None:
        """Price of a second of this GPU, where known."""
        return None if self.usd_per_hour is None else self.usd_per_hour / 3600


def names() -> list[str]:
    """Every GPU of the table that ships."""
    return list(read_shipped("gpus.json")["gpus"])


def known(name: str) -> Gpu:
    """A GPU of the table by name or other spelling, in any case; `ConfigError` with the nearest names otherwise."""
    table = read_shipped("gpus.json")
    listed = {key.lower(): key for key in table["gpus"]}
    for key, entry in table["gpus"].items():
        listed.update((other, key) for other in entry.get("also", ()))
    spelled = _spelled(name)
    if spelled not in listed:
        near = ", ".join(close_names(spelled, map(str.lower, table["gpus"])))
        raise ConfigError(
            f"GPU {name!r}",
            f"one of {', '.join(names())} (nearest: {near})",
            "or build one from its datasheet with mope.mapper.gpus.Gpu",
        )
    found = listed[spelled]
    entry = table["gpus"][found]
    fp8 = entry["tflops_fp8"]
    return Gpu(
        name=found,
        memory_bytes=entry["memory_mib"] * 2**20,
        units=entry["units"],
        bandwidth=entry["bandwidth_gb_s"] * 1e9,
        flops_bf16=entry["tflops_bf16"] * 1e12,
        flops_fp8=None if fp8 is None else fp8 * 1e12,
        link_bandwidth=entry["link_gb_s"] * 1e9,
        link=entry["link"],
        power_w=entry["power_w"],
        usd_per_hour=entry["usd_per_hour"],
        origin=entry["origin"],
        priced=entry["priced"],
    )


def _spelled(name: str) -> str:
    words = name.strip().lower().replace("_", "-").replace(" ", "-").split("-")
    return "-".join(word for word in words if word and word not in MAKERS)
