"""The tables that ship beside this file, and the names nearest to one that is not in them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def read_shipped(name: str) -> dict[str, Any]:
    """A JSON table of this folder."""
    table: dict[str, Any] = json.loads(files("mope.mapper").joinpath(name).read_text(encoding="utf-8"))
    return table


def close_names(name: str, known: Iterable[str], count: int = 5) -> list[str]:
    """The `count` known names most like `name`, best first; where none is like it, the first ones."""
    known = sorted(known)
    return get_close_matches(name.lower(), known, count, 0.3) or known[:count]
