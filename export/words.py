"""What a person wrote for a model card, apart from what was measured: a TOML file.

    title, summary, intended, makeup       prose; {data.models} is a number from facts.json, {data.models:,} formatted
    limits, again                          lists of prose, of commands
    licence, base_model, tags, language    for the Hub
    names                                  words with digits that are names, not numbers: "GPT-4"
    source                                 what `from_pretrained` is given
    [sources."alpaca_eval"]                origin and licence of each source of training data

A digit that is neither in `names` nor in braces is refused: a card shows no number that is not in facts.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from string import Formatter
from typing import Any

from mope.errors import ConfigError

PROSE = ("title", "summary", "intended", "makeup")
BRACES = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Words:
    """The fields of a words file."""

    title: str = "A length predictor made with mope"
    summary: str = "Predicts how many tokens an LLM's answer will have, before it is generated."
    intended: str = (
        "Scheduling, admission, capacity and cost estimates. Not a judgement of a prompt's content."
    )
    makeup: str = ""
    limits: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    licence: str = ""
    base_model: str = ""
    tags: list[str] = field(default_factory=list)
    language: str = ""
    names: list[str] = field(default_factory=list)
    source: str = "owner/name"
    sources: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in (*(getattr(self, name) for name in PROSE), *self.limits):
            self._check(text)

    def _check(self, text: str) -> None:
        bare = BRACES.sub("", text)
        for name in sorted(self.names, key=len, reverse=True):
            bare = bare.replace(name, "")
        if found := re.search(r"\S*\d\S*", bare):
            raise ConfigError(
                f"the number {found[0]!r} in a card's words",
                "a path into facts.json in braces, or a name",
                "write {path}, or put the name into `names`",
            )

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Words:
        """From a read TOML file; an unknown key is refused."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise ConfigError(f"words with unknown keys {unknown}", f"keys among {sorted(known)}")
        return cls(**raw)


class _Filled(Formatter):
    """Braces as paths into facts.json: {evaluation.data.samples:,}."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        return look_up(kwargs, field_name), field_name


def filled(text: str, facts: Mapping[str, Any]) -> str:
    """`text` with numbers of `facts` in the place of braces; raises `ConfigError` for a path that is not there."""
    return _Filled().vformat(text, (), facts)


def look_up(facts: Any, path: str) -> Any:
    """The value at a dotted path; numbers are places in lists."""
    value = facts
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ConfigError(f"the card's words ask for {path}", "a path that is in facts.json") from None
    return value
