"""One client sends half of the traffic and reports lengths that are lies: what the other clients see of it.

    python scripts/hostile.py DATA/alpaca_eval_prompts.parquet --streams 60 --output docs/adapt/hostile

In each stream one model of the data answers its prompts in a drawn order, twice over, for 30 clients by chance; after
each of their answers comes one of the hostile client. Coverage and error are those of the 30, from the 200th answer
on, beside the same stream without the hostile client. Intervals are percentiles of a bootstrap over streams. Writes
OUTPUT.json and OUTPUT.md.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import asdict
from math import log1p
from pathlib import Path
from typing import Any

import numpy as np
from drift import foretold

from mope import __version__
from mope.adapt.online import OnlineCalibrator, OnlineConfig
from mope.files import write_text
from mope.machine import machine
from mope.types import LengthForecast

CLIENTS = 30
START = 200
NAMES = ("coverage", "coverage_moved", "error_ratio")
ATTACKS: dict[str, Callable[[LengthForecast], float]] = {
    "always empty": lambda told: 0,
    "always a million": lambda told: 1_000_000,
    "always as forecast": lambda told: told.tokens,
}
Row = tuple[LengthForecast, int, str]


def stream(
    rows: list[Row], attack: Callable[[LengthForecast], float] | None, named: bool
) -> tuple[float, float]:
    """Coverage and mean error in log1p(length) of the honest clients."""
    calibrator, hits, errors = OnlineCalibrator(), [], []
    for number, (told, length, client) in enumerate(rows):
        found = calibrator.correct(told)
        if number >= START:
            hits.append(found.low <= length <= found.high)
            errors.append(abs(log1p(found.tokens) - log1p(length)))
        calibrator.observe(told, length, client=client if named else None)
        if attack:
            calibrator.observe(told, attack(told), client="hostile" if named else None)
    return float(np.mean(hits)), float(np.mean(errors))


def compared(streams: list[list[Row]], name: str, named: bool, seed: int) -> dict[str, Any]:
    """What an attack changes, mean over streams with its interval."""
    pairs = [(stream(rows, ATTACKS[name], named), stream(rows, None, named)) for rows in streams]
    values = np.array([[bad[0], bad[0] - good[0], bad[1] / good[1]] for bad, good in pairs])
    rng = np.random.default_rng(seed)
    drawn = [values[rng.integers(len(values), size=len(values))].mean(axis=0) for _ in range(1000)]
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    return {n: {"value": float(values[:, i].mean()), "low": float(low[i]), "high": float(high[i])}
            for i, n in enumerate(NAMES)}  # fmt: skip


def markdown(document: dict[str, Any]) -> str:
    """The attacks as a table."""
    lines = [
        "| hostile client | told apart | coverage of the others | moved by | their error, times |\n",
        "|---|---|---|---|---|\n",
    ]
    for row in document["rows"]:
        told = [row[name] for name in NAMES]
        cells = [f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in told]
        lines.append(f"| {row['attack']} | {'yes' if row['named'] else 'no'} | {' | '.join(cells)} |\n")
    return "".join(lines)


def main() -> None:
    """Read the arguments, run the streams, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--streams", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    asked = parser.parse_args()
    forecasts, lengths = foretold(asked.data)
    rng, streams = random.Random(asked.seed), []
    names = sorted(lengths)
    for _ in range(asked.streams):
        answers = lengths[rng.choice(names)]
        order = [p for _ in range(2) for p in rng.sample(sorted(answers), len(answers))]
        streams.append([(forecasts[p], answers[p], f"client-{rng.randrange(CLIENTS)}") for p in order])
    rows = [
        {"attack": name, "named": named, **compared(streams, name, named, asked.seed)}
        for named in (True, False) for name in ATTACKS
    ]  # fmt: skip
    document = {
        "command": f"--streams {asked.streams} --seed {asked.seed}", "mope": __version__, "data": asked.data.name,
        "config": asdict(OnlineConfig()), **machine(), "rows": rows,
    }  # fmt: skip
    write_text(asked.output.with_suffix(".json"), json.dumps(document, indent=1) + "\n")
    write_text(asked.output.with_suffix(".md"), markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()
