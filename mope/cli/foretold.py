"""A real predictor in a simulation: its forecasts of a trace's prompts are made before, as a table.

The simulator imports no predictor, and a run that goes on after a kill reads the same forecasts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mope.sim.scenario import Scenario
    from mope.types import LengthForecast

KINDS = ("exact", "none", "noise", "confusion", "table")
SHIPPED = "shipped"
AT_ONCE = 256


def foretold(predictor: str, scenario: Scenario, folder: Path) -> str:
    """A bundle as the word of the table of its forecasts, which is written into `folder`; other words as they are."""
    from mope.errors import ConfigError
    from mope.files import write_text
    from mope.sim.guesses import KINDS as WORDS

    if predictor.partition(":")[0] in KINDS:
        return predictor
    if predictor != SHIPPED and not Path(predictor).exists() and "/" not in predictor:
        raise ConfigError(
            f"predictor {predictor!r}", f"{WORDS}, or a bundle: a folder, a Hub id, or {SHIPPED}"
        )
    if scenario.trace is None:
        raise ConfigError(f"predictor {predictor!r} with clients that are made up", "a trace with prompts")
    texts = list(scenario.trace.prompts(duration_s=scenario.duration_s, requests=scenario.requests))
    typer.echo(f"{predictor} forecasts {len(texts):,} prompts", err=True)
    path = folder / f"forecasts-{Path(predictor).resolve().name if predictor != SHIPPED else SHIPPED}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(_rows(_forecasts(predictor, texts))))
    return f"table:{path}"


def _forecasts(predictor: str, texts: list[str]) -> Iterator[LengthForecast]:
    from mope.predictor.bundle import MoPE

    bundle = MoPE.from_pretrained(None if predictor == SHIPPED else predictor)
    for place in range(0, len(texts), AT_ONCE):
        yield from bundle.predict(texts[place : place + AT_ONCE])


def _rows(forecasts: Iterator[LengthForecast]) -> Iterator[str]:
    for place, found in enumerate(forecasts):
        if not place:
            yield ",".join(["tokens", "low", "high", *map(repr, found.levels)]) + "\n"
        yield ",".join(map(repr, map(float, (found.tokens, found.low, found.high, *found.quantiles)))) + "\n"
