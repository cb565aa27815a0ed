"""What can be set of an adapter, from one environment variable: JSON, or the path of a TOML or JSON file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from mope.equinox import Priors, make_policy
from mope.equinox.accounts import checked_weight
from mope.errors import ConfigError
from mope.settings import apply_settings, parse_settings

VARIABLE = "MOPE_EQUINOX"
T = TypeVar("T")
HINT = "no carriers: the adapter's own order"


@dataclass(frozen=True)
class Settings:
    """Of the fairness inside an engine. `priors` are those of `FairScheduler`, as a table of numbers."""

    policy: str = field(
        default="equinox", metadata={"help": "word for make_policy: equinox, vtc:forecast, ..."}
    )
    weights: Mapping[str, float] = field(
        default_factory=dict, metadata={"help": "tenant -> share; default 1"}
    )
    groups: Mapping[str, str] = field(default_factory=dict, metadata={"help": "tenant -> shared account"})
    tenant_from: tuple[str, ...] = field(default=(), metadata={"help": f"carriers, first found wins; {HINT}"})
    default_tenant: str = field(default="default", metadata={"help": "tenant of a request that names none"})
    forecast_key: str = field(default="predicted_tokens", metadata={"help": "extra argument with a forecast"})
    predictor: str = field(
        default="",
        metadata={
            "help": "asked on arrival: a bundle's folder or Hub id, shipped, or module:function; empty: none"
        },
    )
    hardware: str = field(default="", metadata={"help": "hardware profile for the predictor's forecasts"})
    deadline_ms: float = field(default=50.0, metadata={"help": "a forecast that takes longer is not used"})
    learn: bool = field(
        default=True, metadata={"help": "hold the predictor's forecasts to what the engine answers"}
    )
    max_asked: int = field(default=1024, metadata={"help": "forecasts that may be asked for at a time"})
    clock: Literal["wall", "steps"] = field(
        default="wall", metadata={"help": "steps: no wall clock, the same on every rank"}
    )
    step_s: float = field(default=0.03, metadata={"help": "seconds a step stands for with clock=steps"})
    victim: Literal["fair", "native"] = field(
        default="fair",
        metadata={"help": "fair: preempt who was served most, where the engine lets us choose"},
    )
    max_tenants: int = field(default=4096, metadata={"help": "accounts kept; names beyond share 64"})
    metric_tenants: int = field(default=100, metadata={"help": "tenants with metric labels of their own"})
    metrics_s: float = field(default=1.0, metadata={"help": "seconds between two updates of metrics"})
    priors: Priors = field(default_factory=Priors)

    def __post_init__(self) -> None:
        make_policy(self.policy)
        for name, weight in self.weights.items():
            checked_weight(name, weight)
        for name in ("deadline_ms", "step_s", "metrics_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)}", "a finite number above 0")
        for name, least in (("max_tenants", 1), ("metric_tenants", 0), ("max_asked", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}", f"a whole number from {least}")
        for name, known in (("clock", ("wall", "steps")), ("victim", ("fair", "native"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r}", " or ".join(known))

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any]) -> Settings:
        """From plain values. Raises `ConfigError` on an unknown key (with the known ones) or a wrong value."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(table.keys() - known)
        if unknown:
            raise ConfigError(f"setting {unknown[0]!r}", f"one of {', '.join(sorted(known))}")
        values: dict[str, Any] = {
            name: _table(name, table[name]) for name in ("weights", "groups") if name in table
        }
        if "tenant_from" in table:
            values["tenant_from"] = _words(table["tenant_from"])
        if "priors" in table:
            values["priors"] = _plain(Priors(), _table("priors", table["priors"]))
        rest = {
            name: value for name, value in table.items() if name not in (*values, "tenant_from", "priors")
        }
        return replace(_plain(cls(), rest), **values)

    @classmethod
    def from_environment(cls, variable: str = VARIABLE) -> Settings:
        """From the environment variable; the defaults where it is not set. Raises `ConfigError` naming it."""
        text = os.environ.get(variable, "").strip()
        if not text:
            return cls()
        try:
            return cls.from_mapping(_read(text))
        except ConfigError as error:
            raise ConfigError(f"{variable}: {error.came}", error.expected, error.todo) from None


def _plain(settings: T, values: Mapping[str, Any]) -> T:
    """`settings` with numbers and words put in, each converted to its field's type."""
    pairs = [f"{name}={_word(name, value)}" for name, value in values.items()]
    return apply_settings(settings, parse_settings(pairs, type(settings)))


def _word(name: str, value: object) -> object:
    if isinstance(value, (str, int, float)):
        return value
    raise ConfigError(f"{name}={value!r}", "a word or a number")


def _table(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}={value!r}", "a table")
    kind: tuple[type, ...] = (str,) if name == "groups" else (int, float)
    for key, item in value.items():
        if not isinstance(item, kind) or isinstance(item, bool):
            raise ConfigError(f"{name}.{key}={item!r}", "a word" if name == "groups" else "a number")
    return dict(value)


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise ConfigError(f"tenant_from={value!r}", "a list of words")
    return tuple(word.strip() for word in value if word.strip())


def _read(text: str) -> Mapping[str, Any]:
    """The table in `text` itself, or in the file it names."""
    try:
        if text.startswith("{"):
            found = json.loads(text)
        elif text.endswith(".json"):
            found = json.loads(Path(text).read_text("utf-8"))
        elif text.endswith(".toml"):
            found = _toml(Path(text).read_text("utf-8"))
        else:
            raise ConfigError(f"{text[:80]!r}", "JSON in braces, or the path of a .json or .toml file")
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{text[:80]!r} ({error})", "JSON in braces, or a .json or .toml file") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{text[:80]!r}", "a table of settings")
    return found


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
