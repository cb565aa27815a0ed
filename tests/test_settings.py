from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from mope.errors import ConfigError
from mope.settings import apply_settings, describe_settings, parse_settings


@dataclass(frozen=True)
class Text:
    head: int = 48


@dataclass(frozen=True)
class Recipe:
    seed: int = field(default=0, metadata={"help": "Seeds everything."})
    rate: float = 1e-3
    resume: bool = False
    name: str = "x"
    limit: int | None = None
    levels: tuple[float, ...] = (0.5,)
    pair: tuple[int, str] = (1, "a")
    mode: Literal["hard", "soft"] = "soft"
    cache: Path = Path("cache")
    table: dict[str, int] = field(default_factory=dict)
    text: Text = field(default_factory=Text)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("seed=7", 7),
        ("seed = -7", -7),
        ("rate=3e-5", 3e-5),
        ("rate=2", 2.0),
        ("resume=yes", True),
        ("resume=False", False),
        ("name=a=b", "a=b"),
        ("name=", ""),
        ("limit=None", None),
        ("limit=12", 12),
        ("levels=0.1, 0.5,0.9", (0.1, 0.5, 0.9)),
        ("levels=", ()),
        ("pair=(3,b)", (3, "b")),
        ("mode=hard", "hard"),
        ("cache=a/b", Path("a/b")),
        ("text.head=3", 3),
    ],
)
def test_a_pair_becomes_a_value_of_its_fields_type(pair: str, value: object) -> None:
    (got,) = parse_settings([pair], Recipe).values()
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "pair",
    [
        "seed=1.5",
        "seed=",
        "rate=nan",
        "resume=2",
        "limit=x",
        "levels=0.1;0.5",
        "pair=1",
        "mode=firm",
        "table={}",
    ],
)
def test_a_value_that_does_not_fit_names_the_key_and_its_type(pair: str) -> None:
    with pytest.raises(ConfigError, match=f"{pair.partition('=')[0]} of type"):
        parse_settings([pair], Recipe)


def test_an_unknown_key_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'sed'.*one of seed, rate, .*text\.head"):
        parse_settings(["sed=1"], Recipe)
    with pytest.raises(ConfigError, match="'text'"):
        parse_settings(["text=1"], Recipe)


def test_a_pair_without_equals_is_refused() -> None:
    with pytest.raises(ConfigError, match="key=value"):
        parse_settings(["seed"], Recipe)


def test_settings_reach_nested_fields_and_leave_the_rest() -> None:
    values = parse_settings(["text.head=3", "seed=1", "seed=2"], Recipe)
    assert apply_settings(Recipe(name="kept"), values) == Recipe(name="kept", seed=2, text=Text(head=3))
    assert apply_settings(Recipe(), {}) == Recipe()


def test_the_description_has_a_line_per_setting_with_default_and_help() -> None:
    lines = describe_settings(Recipe).splitlines()
    assert lines[0] == "seed: int = 0  Seeds everything."
    assert "limit: int | None = None" in lines
    assert "text.head: int = 48" in lines
    assert len(lines) == 11
