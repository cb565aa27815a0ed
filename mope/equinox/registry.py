"""Policies by name: ours, and those of installed packages in the entry-point group `mope.policies`.

A package registers its own with `[project.entry-points."mope.policies"]` and `name = "package.module:Class"`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mope.equinox.policies.base import Policy
from mope.errors import ConfigError
from mope.settings import parse_settings

GROUP = "mope.policies"
OURS = {
    "fcfs": "mope.equinox.policies.fcfs:Fcfs",
    "rpm": "mope.equinox.policies.rpm:Rpm",
    "vtc": "mope.equinox.policies.vtc:Vtc",
    "lcf": "mope.equinox.policies.lcf:Lcf",
    "equinox": "mope.equinox.policies.equinox:Equinox",
}


def policy_names() -> list[str]:
    """Every name `make_policy` takes."""
    return sorted({*OURS, *(point.name for point in entry_points(group=GROUP))})


def policy_class(name: str) -> type[Policy]:
    """The class behind a name; ours win over an entry point of the same name. Raises `ConfigError`."""
    if name in OURS:
        module, _, attribute = OURS[name].partition(":")
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
    points: list[EntryPoint] = list(entry_points(group=GROUP, name=name))
    if not points:
        raise ConfigError(f"policy {name!r}", f"one of {', '.join(policy_names())}")
    found = points[0].load()
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise ConfigError(f"policy {name!r}: {points[0].value}", "a subclass of mope.equinox.Policy")
    return found


def make_policy(spec: str, **settings: Any) -> Policy:
    """A policy from `name`, `name:word` or `name:key=value,key=value`: `rpm:20`, `vtc:oracle`, `equinox:beta=0.5`.

    `preset=paper` begins with a preset's numbers in place of the defaults. `settings` are fields of its config and
    win over the words. Raises `ConfigError` on an unknown name, key, preset or value.
    """
    name, _, words = spec.partition(":")
    cls = policy_class(name.strip())
    pairs = [word if "=" in word else f"{cls.shorthand}={word.strip()}" for word in words.split(",") if word]
    config, pairs = _preset(cls, pairs)
    values = parse_settings(pairs, cls.Config)
    unknown = sorted(settings.keys() - cls.Config.__dataclass_fields__.keys())
    if unknown:
        raise ConfigError(
            f"policy {name}: {unknown[0]}", f"one of {', '.join(cls.Config.__dataclass_fields__)}"
        )
    return cls(replace(config, **{**values, **settings}))


def _preset(cls: type[Policy], pairs: list[str]) -> tuple[Any, list[str]]:
    """The config to begin with, and the words without those that name it."""
    keys = [pair.partition("=")[0].strip() for pair in pairs]
    names = [pair.partition("=")[2].strip() for pair, key in zip(pairs, keys, strict=True) if key == "preset"]
    left = [pair for pair, key in zip(pairs, keys, strict=True) if key != "preset"]
    for name in names:
        if name not in cls.presets:
            known = ", ".join(cls.presets) or f"none: {cls.name} has no presets"
            raise ConfigError(f"policy {cls.name}: preset {name!r}", known)
    return (cls.presets[names[-1]] if names else cls.Config()), left
