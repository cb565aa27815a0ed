"""Dataclass fields as flags: `--set key=value` turned into values, and the list of what may be set.

A field's default is written once, in its dataclass; its help is `field(metadata={"help": ...})`.
Fields of a nested dataclass are reached with a dot: `--set text.prompt_head=64`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mope.errors import ConfigError

T = TypeVar("T")
BOOLS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def parse_settings(pairs: Iterable[str], cls: type) -> dict[str, Any]:
    """Values of `key=value` pairs, converted to the types of the fields of dataclass `cls`.

    A later pair wins over an earlier one. Raises `ConfigError` on a pair without `=`, on an unknown key
    (the message lists the known ones) and on a value that its field cannot hold.
    """
    known = _flatten(cls)
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"setting {pair!r}", "key=value")
        if key not in known:
            raise ConfigError(f"setting {key!r}", f"one of {', '.join(known)}")
        hint = known[key][1]
        try:
            values[key] = _convert(text.strip(), hint)
        except ValueError:
            raise ConfigError(f"setting {pair!r}", f"{key} of type {_name(hint)}") from None
    return values


def apply_settings(settings: T, values: Mapping[str, Any]) -> T:
    """A copy of dataclass instance `settings` with the `values` of `parse_settings` put in."""
    own = {key: value for key, value in values.items() if "." not in key}
    for head in dict.fromkeys(key.partition(".")[0] for key in values if "." in key):
        below = {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{head}.")}
        own[head] = apply_settings(getattr(settings, head), below)
    return replace(settings, **own)  # type: ignore[type-var]


def describe_settings(cls: type) -> str:
    """One line per setting of dataclass `cls`: key, type, default, help."""
    lines = []
    for key, (field, hint) in _flatten(cls).items():
        default = "" if field.default is MISSING else f" = {field.default!r}"
        lines.append(f"{key}: {_name(hint)}{default}  {field.metadata.get('help', '')}".rstrip())
    return "\n".join(lines)


def _flatten(cls: type, prefix: str = "") -> dict[str, tuple[Field[Any], Any]]:
    """Dotted key -> (field, type) of every field that is not itself a dataclass."""
    hints = get_type_hints(cls)
    found: dict[str, tuple[Field[Any], Any]] = {}
    for field in fields(cls):
        hint, key = hints[field.name], prefix + field.name
        nested = isinstance(hint, type) and is_dataclass(hint)
        found |= _flatten(hint, f"{key}.") if nested else {key: (field, hint)}
    return found


def _convert(text: str, hint: Any) -> Any:
    """`text` as a value of type `hint`; raises `ValueError` where it is none."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _first(text, args)
    if origin is Literal:
        return {str(arg): arg for arg in args}[text] if text in map(str, args) else _refuse(text)
    if origin is tuple:
        return _convert_tuple(text, args)
    if hint is bool:
        return BOOLS[text.lower()] if text.lower() in BOOLS else _refuse(text)
    if hint is float:
        return float(text) if math.isfinite(float(text)) else _refuse(text)
    if hint in (int, str, Path):
        return hint(text)
    return _refuse(text)


def _first(text: str, options: tuple[Any, ...]) -> Any:
    """The first of `options` that takes `text`; the word none is None where None is an option."""
    if text.lower() == "none" and NoneType in options:
        return None
    for option in options:
        try:
            return _convert(text, option)
        except ValueError:
            continue
    return _refuse(text)


def _convert_tuple(text: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
    kinds = (args[0],) * len(parts) if args[1:] == (Ellipsis,) else args
    if len(parts) != len(kinds):
        _refuse(text)
    return tuple(_convert(part, kind) for part, kind in zip(parts, kinds, strict=True))


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _name(hint: Any) -> str:
    plain = isinstance(hint, type) and not get_args(hint)
    return hint.__name__ if plain else str(hint).replace("typing.", "")
