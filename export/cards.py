"""Cards on disk: rendered from files, written, and checked for being stale. What `mope card` calls."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mope.errors import ConfigError
from mope.export.card import PLOT, render, with_energy
from mope.export.card_plot import reliability
from mope.export.words import Words
from mope.files import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Card:
    """A card's files by path: the Markdown; the plot where there is an evaluation; the facts where energy is new."""

    files: dict[Path, str]

    @classmethod
    def of(cls, facts: Path, words: Words, target: Path, plot: Path | None = None) -> Card:
        """The card that belongs at `target`, with its plot at `plot` (default: beside it). Raises `ConfigError`."""
        plot = plot or target.with_name(PLOT)
        known = read_facts(facts)
        full = with_energy(known)
        files = {} if full == known else {facts: json.dumps(full, indent=1) + "\n"}
        files[target] = render(full, words, Path(os.path.relpath(plot, target.parent)).as_posix())
        if "evaluation" in full:
            files[plot] = reliability(full)
        return cls(files)

    def write(self) -> None:
        """Each file whole or not at all."""
        for path, text in self.files.items():
            write_text(path, text)

    @property
    def stale(self) -> list[Path]:
        """Files that are missing or say something else."""
        return [
            path for path, text in self.files.items()
            if not path.is_file() or path.read_text(encoding="utf-8") != text
        ]  # fmt: skip


def read_words(path: Path | None) -> Words:
    """A words file; without one, the general words. Raises `ConfigError`."""
    if path is None:
        return Words()
    try:
        return Words.of(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise ConfigError(f"words {path} ({error})", "a TOML file") from None


def read_facts(path: Path) -> dict[str, Any]:
    """A facts.json. Raises `ConfigError`."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"facts {path} ({error})", "a facts.json") from None
    if not isinstance(facts, dict):
        raise ConfigError(f"facts {path}, which hold no object", "a facts.json")
    return facts
