"""Adapters by name: ours, and those of installed packages in the entry-point group `mope.adapters`.

An entry names an `Adapter`: the engine versions it was tested with and how to use it. Outside that range an adapter
refuses to start, unless it is told to go on: an engine that moved the seam must not be found out in production.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, version

from mope.errors import ConfigError

GROUP = "mope.adapters"
ALLOW_VARIABLE = "MOPE_ALLOW_UNTESTED"
OURS: dict[str, str] = {
    "vllm": "mope.serving_adapters.vllm_adapter:ADAPTER",
    "sglang": "mope.serving_adapters.sglang_adapter:ADAPTER",
    "slora": "mope.serving_adapters.slora_adapter:ADAPTER",
    "lightllm": "mope.serving_adapters.lightllm_adapter:ADAPTER",
    "tags": "mope.serving_adapters.dialects:ADAPTER",
    "gate": "mope.serving_adapters.door:ADAPTER",
}


@dataclass(frozen=True)
class Adapter:
    """One engine. Versions `first` up to `last` were tested, `last` with all its patches: "0.27" to "0.33".

    `distributions` are the names its package goes by; none where any engine will do, which then always fits.
    """

    name: str
    about: str
    use: str
    distributions: tuple[str, ...] = ()
    first: str = ""
    last: str = ""

    @property
    def tested(self) -> str:
        """The range in words."""
        return f"{self.first} to {self.last}" if self.distributions else "any engine"


@dataclass(frozen=True)
class Found:
    """An adapter on this machine: the engine's version, empty where it is not installed."""

    adapter: Adapter
    version: str
    fits: bool

    @property
    def state(self) -> str:
        """In words."""
        if not self.adapter.distributions:
            return "ready"
        return "not installed" if not self.version else "ready" if self.fits else "untested version"


def adapter_names() -> list[str]:
    """Every name `get_adapter` takes."""
    return sorted({*OURS, *(point.name for point in entry_points(group=GROUP))})


def get_adapter(name: str) -> Adapter:
    """The adapter of a name; ours win over an entry point of the same name. Raises `ConfigError`."""
    place = OURS.get(name) or next((point.value for point in entry_points(group=GROUP, name=name)), None)
    if place is None:
        raise ConfigError(f"adapter {name!r}", f"one of {', '.join(adapter_names())}")
    module, _, attribute = place.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"adapter {name!r}: {place} ({error})", "an importable Adapter") from None
    if not isinstance(found, Adapter):
        raise ConfigError(f"adapter {name!r}: {place}", "a mope.serving_adapters.registry.Adapter")
    return found


def find(adapter: Adapter) -> Found:
    """What is installed of an adapter's engine, and whether it fits. Imports nothing of the engine."""
    installed = installed_version(adapter.distributions)
    fits = not adapter.distributions or (bool(installed) and in_range(installed, adapter))
    return Found(adapter, installed, fits)


def installed_version(distributions: Iterable[str]) -> str:
    """The version of the first of these distributions that is installed; empty where none is."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def in_range(installed: str, adapter: Adapter) -> bool:
    """Whether a version is one that was tested: 0.33.1 is where `last` is 0.33."""
    numbers, last = _numbers(installed), _numbers(adapter.last)
    return bool(numbers) and _numbers(adapter.first) <= numbers and numbers[: len(last)] <= last


def check(adapter: Adapter, installed: str | None = None, *, allow_untested: bool = False) -> None:
    """Raise `ConfigError` where the engine is missing or was not tested; the latter can be allowed.

    `installed` is the version where the caller knows better than the package index of this environment.
    """
    found = find(adapter).version if installed is None else installed
    if not adapter.distributions or (found and in_range(found, adapter)):
        return
    if not found:
        raise ConfigError(
            f"{adapter.name} is not installed", f"{' or '.join(adapter.distributions)} {adapter.tested}"
        )
    if not (allow_untested or untested_allowed()):
        raise ConfigError(
            f"{adapter.name} {found}",
            f"{adapter.tested}, the versions this adapter was tested with",
            f"install one of them, or go on untested with --allow-untested or {ALLOW_VARIABLE}=1",
        )


def untested_allowed() -> bool:
    """Whether the environment allows engine versions that were not tested."""
    return os.environ.get(ALLOW_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")


def _numbers(text: str) -> tuple[int, ...]:
    """(0, 33, 1) of 0.33.1+cpu or 0.33.1rc2; empty where it does not begin with a number."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
