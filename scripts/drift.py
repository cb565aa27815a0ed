"""A served model is switched in the middle of a stream: how soon the 80 % intervals are right again.

    python scripts/drift.py shared/data/prompts/alpaca_eval_prompts.parquet --switches 1000 --output docs/adapt/drift

Answers are real: of two models drawn from the data, the first answers half of the prompts in a drawn order and the
second the other half. Forecasts are the bundle's, without a model's name; the calibrator is not told of the switch
either. Intervals are percentiles of a bootstrap over switches. Writes OUTPUT.json and OUTPUT.md.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mope import __version__
from mope.adapt.online import OnlineCalibrator, OnlineConfig
from mope.data.load import read_examples
from mope.files import write_text
from mope.machine import machine
from mope.predictor.bundle import MoPE
from mope.types import LengthForecast, Request

BLOCKS = ((1, 25), (26, 50), (51, 100), (101, 150), (151, 200), (201, 300))
BEFORE = 100  # the last requests before the switch
LEAST = 500  # answers a model must have given
LARGE = 0.5  # log1p between the two models' medians, from which on a switch is called large
WAYS = ("bundle as it is", "online")


@dataclass(frozen=True)
class Switch:
    """What one switch of model did, by way of forecasting: hits and log errors by number after the switch."""

    gap: float
    quiet: int  # alarms before the switch
    delay: int | None  # requests from the switch to the first alarm
    hits: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    widths: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def run(
    forecasts: dict[str, LengthForecast], first: dict[str, int], second: dict[str, int], rng: random.Random
) -> Switch:
    """One stream: `first` and `second` are the lengths of two models by prompt."""
    prompts = sorted(first.keys() & second.keys())
    rng.shuffle(prompts)
    middle = len(prompts) // 2
    calibrator = OnlineCalibrator()
    found = Switch(_gap(first, second, prompts), 0, None)
    quiet, delay = 0, None
    for number, prompt in enumerate(prompts):
        told, length = forecasts[prompt], (first if number < middle else second)[prompt]
        if number >= middle - BEFORE:
            for way, said in zip(WAYS, (told, calibrator.correct(told)), strict=True):
                found.hits[way].append(said.low <= length <= said.high)
                found.widths[way].append(float(np.log1p(said.high) - np.log1p(said.low)))
        if calibrator.observe(told, length):
            quiet += number < middle
            delay = number - middle + 1 if number >= middle and delay is None else delay
    return replace(found, quiet=quiet, delay=delay)


def _gap(first: dict[str, int], second: dict[str, int], prompts: list[str]) -> float:
    medians = [float(np.median(np.log1p([lengths[p] for p in prompts]))) for lengths in (first, second)]
    return abs(medians[1] - medians[0])


def table(switches: list[Switch], seed: int) -> list[dict[str, Any]]:
    """Coverage and width by block of requests."""
    rows = []
    spans = [(f"the last {BEFORE} before", 0, BEFORE)]
    spans += [(f"{low} to {high} after", BEFORE + low - 1, BEFORE + high) for low, high in BLOCKS]
    for name, start, end in spans:
        row: dict[str, Any] = {"requests": name}
        for way in WAYS:
            shares = np.array([np.mean(s.hits[way][start:end]) for s in switches])
            row[way] = {"coverage": _interval(shares, seed), "width_log": float(
                np.mean([np.mean(s.widths[way][start:end]) for s in switches])
            )}  # fmt: skip
            row[way]["of_switches"] = [float(x) for x in np.percentile(shares, (5, 50, 95))]
        rows.append(row)
    return rows


def _interval(values: np.ndarray, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(1000)]
    low, high = np.percentile(means, (2.5, 97.5))
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def alarms(switches: list[Switch]) -> dict[str, Any]:
    """How many switches were found out, and how soon."""
    delays = [s.delay for s in switches if s.delay is not None]
    return {
        "switches": len(switches), "found": len(delays),
        "delay_p50": float(np.median(delays)) if delays else None,
        "delay_p90": float(np.percentile(delays, 90)) if delays else None,
        "before_the_switch": sum(s.quiet for s in switches),
    }  # fmt: skip


def markdown(title: str, rows: list[dict[str, Any]], told: dict[str, Any]) -> list[str]:
    """One group of switches as a table."""
    lines = [
        f"{title}: {told['switches']:,} switches; an alarm after {told['found']:,} of them, in the median "
        f"{told['delay_p50']:.0f} requests and in nine of ten at most {told['delay_p90']:.0f} after the switch; "
        f"{told['before_the_switch']} alarms before it.\n\n",
        "| requests | as it is: coverage | width | online: coverage | width | 5 to 95 % of switches |\n",
        "|---|---|---|---|---|---|\n",
    ]
    for row in rows:
        cells = []
        for way in WAYS:
            c = row[way]["coverage"]
            cells += [f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]", f"{row[way]['width_log']:.2f}"]
        low, _, high = row[WAYS[1]]["of_switches"]
        lines.append(f"| {row['requests']} | {' | '.join(cells)} | {low:.2f} to {high:.2f} |\n")
    return [*lines, "\n"]


def foretold(
    path: Path, bundle: str | None = None
) -> tuple[dict[str, LengthForecast], dict[str, dict[str, int]]]:
    """Forecasts by prompt, without a model's name; lengths by model and prompt, of models with enough answers."""
    lengths: dict[str, dict[str, int]] = defaultdict(dict)
    prompts: dict[str, str] = {}
    for example in read_examples([path]).examples:
        prompts[example.group] = example.request.prompt
        lengths[example.request.model or ""][example.group] = example.lengths[0]
    told = MoPE.from_pretrained(bundle).predict([Request(prompt) for prompt in prompts.values()])
    enough = {name: answers for name, answers in lengths.items() if len(answers) >= LEAST}
    return dict(zip(prompts, told, strict=True)), enough


def main() -> None:
    """Read the arguments, run the switches, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", help="default: the one that ships")
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    asked = parser.parse_args()
    forecasts, lengths = foretold(asked.data, asked.bundle)
    names = sorted(lengths)
    rng = random.Random(asked.seed)
    switches = []
    for _ in range(asked.switches):
        first, second = rng.sample(names, 2)
        switches.append(run(forecasts, lengths[first], lengths[second], rng))
    groups = {
        "All switches": switches,
        f"Medians at least {LARGE} apart": [s for s in switches if s.gap >= LARGE],
    }
    document: dict[str, Any] = {
        "command": f"--switches {asked.switches} --seed {asked.seed}", "mope": __version__, "data": asked.data.name,
        "bundle": asked.bundle or "shipped", "models": len(names), "prompts": len(forecasts),
        "config": asdict(OnlineConfig()), **machine(), "groups": {},
    }  # fmt: skip
    page = []
    for name, members in groups.items():
        rows, found = table(members, asked.seed), alarms(members)
        document["groups"][name] = {"rows": rows, "alarms": found}
        page += markdown(name, rows, found)
    write_text(asked.output.with_suffix(".json"), json.dumps(document, indent=1) + "\n")
    write_text(asked.output.with_suffix(".md"), "".join(page))
    print("".join(page))


if __name__ == "__main__":
    main()
