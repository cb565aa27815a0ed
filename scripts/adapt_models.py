"""Served models that a bundle has never seen: as it is, calibrated from a log, and predictors of the log alone.

    python scripts/adapt_models.py PROMPTS LENGTHS --work DIR --more DATA... --output docs/adapt/models

PROMPTS and LENGTHS are a pair of tables with many models (alpaca_eval). 40 models and a fifth of the prompts, by
hash, are kept from the bundle, which DIR/bundle holds; where it is not there it is trained on the rest and on the
tables of --more (code questions left out). Each of the 40 is then calibrated from logs of 50 and of 500 prompts and
judged on the fifth that nobody saw.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.adapt.calibrate import errors, fit, forecasts
from mope.adapt.observed import Observed, fold_of
from mope.adapt.standin import chosen
from mope.data.load import read_examples
from mope.data.records import Example, LengthData
from mope.data.split import part_of
from mope.machine import machine
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.overlay import Overlay
from mope.training.boosting import fit_lengths
from mope.training.floors import LENGTH

HELD_OUT, TEST, SIZES = 40, 0.2, (50, 500)
SETTINGS = (
    "threads=1", "model_shrink=1", "censored=true", "epochs.proxy=4", "epochs.proxy_tower=2", "epochs.router=2",
    "epochs.experts=2", "epochs.joint=1",
)  # fmt: skip
CODE = ("Mbpp", "Apps", "DS1000", "BigCodeBench")
BLOCK = 64
RESAMPLES = 10_000
FloatArray = NDArray[np.float64]


def share(word: str) -> float:
    """A number in [0, 1) that depends on the word alone."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") / 2**64


def held_out(models: set[str]) -> list[str]:
    """The models that the bundle must not see."""
    return sorted(models, key=lambda name: share(f"adapt:{name}"))[:HELD_OUT]


def others(more: list[str]) -> list[Example]:
    """The examples of --more."""
    return [e for e in read_examples(more).examples if e.source not in CODE] if more else []


def train_population(data: LengthData, more: list[Example], folder: Path) -> None:
    """A bundle of the preset `shipped` on all but the held-out models and prompts."""
    from mope.training.recipe import load_recipe
    from mope.training.train import train

    unseen = set(held_out(set(data.models)))
    kept = [e for e in data.examples if e.request.model not in unseen and share(f"test:{e.group}") >= TEST]
    train(load_recipe("shipped", settings=SETTINGS), LengthData(kept + more), folder, resume=True)


@dataclass(frozen=True, eq=False)
class Said:
    """What the bundle says of P prompts as each of M known models (0: unknown): proxy's medians [M, P], experts
    [M, P, 3, K], chances [M, P, 3], features [P, F]."""

    proxy: FloatArray
    experts: NDArray[np.float32]
    chances: NDArray[np.float32]
    features: NDArray[np.float32]

    @classmethod
    def of(cls, bundle: MoPE, data: LengthData, groups: list[str], file: Path) -> Said:
        """Asked once; kept in `file`."""
        if file.is_file():
            kept = np.load(file)
            return cls(*(kept[name] for name in cls.__dataclass_fields__))
        first = {e.group: replace(e.request, model=None) for e in data.examples}
        requests = [first[group] for group in groups]
        inputs, n, middle = bundle.inputs(requests), len(groups), bundle.config.quantiles.index(0.5)
        proxy, experts, chances = [], [], []
        for start in range(0, len(bundle.config.models) + 1, BLOCK):
            some = np.arange(start, min(start + BLOCK, len(bundle.config.models) + 1))
            asked = replace(inputs.take(np.tile(np.arange(n), len(some))), model=np.repeat(some, n))
            answers, odds = bundle.expert_answers(requests * len(some), asked)
            proxy.append(bundle.run([layout.PROXY], asked)[layout.PROXY][:, middle].reshape(-1, n))
            experts.append(answers.reshape(len(some), n, 3, -1).astype(np.float32))
            chances.append(odds.reshape(len(some), n, 3).astype(np.float32))
        found = [np.concatenate(parts) for parts in (proxy, experts, chances)]
        np.savez(file, **dict(zip(cls.__dataclass_fields__, [*found, inputs.features], strict=True)))
        return cls(found[0], found[1], found[2], inputs.features)


@dataclass(frozen=True, eq=False)
class World:
    """Lengths [models, P] (NaN where there is none) of prompts, which of them are for the test, which the bundle was
    trained on (other models' answers to them), and what was said."""

    names: list[str]
    lengths: FloatArray
    limits: FloatArray
    test: NDArray[np.bool_]
    fold: NDArray[np.int64]
    read: NDArray[np.bool_]
    said: Said

    def observed(self, model: int, rows: NDArray[np.int64], as_known: int) -> Observed:
        """Rows as `calibrate` would lay them out."""
        said, limit = self.said, self.limits[model, rows]
        return Observed(
            np.log1p(np.minimum(self.lengths[model, rows], limit)), np.log1p(limit), np.ones(len(rows)), rows,
            self.fold[rows], said.features[rows], said.experts[as_known, rows].astype(np.float64),
            said.chances[as_known, rows].astype(np.float64),
        )  # fmt: skip


def world(data: LengthData, said: Said, groups: list[str], seen: set[str]) -> World:
    """The data as a table; a prompt among `seen`, which another source has too, is not for the test."""
    names, place = sorted(set(data.models)), {group: i for i, group in enumerate(groups)}
    lengths = np.full((len(names), len(groups)), np.nan)
    limits = np.full(lengths.shape, np.inf)
    index = {name: i for i, name in enumerate(names)}
    for example in data.examples:
        at = index[example.request.model or ""], place[example.group]
        lengths[at] = float(np.median(example.lengths))
        limits[at] = np.inf if example.limit is None else example.limit
    test = np.array([share(f"test:{group}") < TEST and group not in seen for group in groups])
    lengths[:, [share(f"test:{group}") < TEST and group in seen for group in groups]] = np.nan
    read = np.array([part_of(group) == "train" for group in groups])
    return World(names, lengths, limits, test, np.array([fold_of(g) for g in groups]), read, said)


def judge(bundle: MoPE, here: World, model: int, draw: int) -> dict[str, float]:
    """Mean absolute errors in tokens on the test prompts, and more, of one held-out model."""
    there = ~np.isnan(here.lengths[model])
    test, pool = np.flatnonzero(here.test & there), np.flatnonzero(~here.test & there)
    pool = np.random.default_rng([draw, model]).permutation(pool)
    pool = pool[np.argsort(here.read[pool], kind="stable")]  # a log is of prompts that no training has seen
    plain = here.observed(model, test, 0)
    zero = errors(bundle, plain, forecasts(bundle, plain, Overlay("zero")))
    row = {"zero": _mean(zero, "mae"), "zero coverage": _mean(zero, "coverage")}
    for size in SIZES:
        log = np.sort(pool[:size])
        began = time.perf_counter()
        truth, cut = np.log1p(here.lengths[model, log]), here.lengths[model, log] >= here.limits[model, log]
        asked = log[:60]
        as_known = chosen(here.said.proxy[:, asked], truth[:60], cut[:60], 0) if len(asked) else 0
        overlay, _ = fit(bundle, here.observed(model, log, as_known), Overlay("new"))
        row[f"seconds {size}"] = time.perf_counter() - began
        seen = here.observed(model, test, as_known)
        after = errors(bundle, seen, forecasts(bundle, seen, overlay))
        row[f"calibrated {size}"], row[f"coverage {size}"] = _mean(after, "mae"), _mean(after, "coverage")
        row |= {f"{name} {size}": _scratch(here, model, log, test, name) for name in ("constant", "trees")}
    row |= {f"{name} all": _scratch(here, model, np.sort(pool), test, name) for name in ("constant", "trees")}
    row["prompts all"], row["prompts test"] = len(pool), len(test)
    return row


def _mean(values: dict[str, FloatArray], name: str) -> float:
    return float(values[name].mean())


def _scratch(here: World, model: int, log: NDArray[np.int64], test: NDArray[np.int64], name: str) -> float:
    """MAE of a predictor that knows nothing but the log."""
    lengths, truth = here.lengths[model, log], here.lengths[model, test]
    if name == "constant":
        return float(np.abs(truth - np.median(lengths)).mean())
    trees = fit_lengths(here.said.features[log], np.log1p(lengths), LENGTH, 0)
    return float(np.abs(truth - np.expm1(trees.margins(here.said.features[test])[:, 0])).mean())


def median_ratio(rows: list[dict[str, Any]], above: str, below: str) -> list[float]:
    """The median over models of a ratio of errors, with its 95 % interval by bootstrap over models."""
    values = np.array([row[above] / row[below] for row in rows])
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[drawn], axis=1), [0.025, 0.975])
    return [float(np.median(values)), float(low), float(high)]


RATIOS = (
    ("calibrated 50", "zero"), ("calibrated 50", "scratch 50"), ("calibrated 500", "zero"),
    ("calibrated 500", "scratch all"), ("scratch 50", "zero"), ("scratch all", "zero"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts")
    parser.add_argument("lengths")
    parser.add_argument("--more", nargs="*", default=[])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    data, more = read_examples([asked.prompts, asked.lengths]), others(asked.more)
    if not (asked.work / "bundle" / layout.CONFIG).is_file():
        train_population(data, more, asked.work / "bundle")
    bundle = MoPE.from_pretrained(asked.work / "bundle", backend="torch", overlay="none")
    groups = sorted(set(data.groups))
    said = Said.of(bundle, data, groups, asked.work / "said.npz")
    here = world(data, said, groups, {example.group for example in more})
    rows = []
    for name in held_out(set(data.models)):
        row: dict[str, Any] = {"model": name, **judge(bundle, here, here.names.index(name), 0)}
        for size in (*SIZES, "all"):  # the better of the two on the test prompts: no one could choose better
            row[f"scratch {size}"] = min(row[f"constant {size}"], row[f"trees {size}"])
        rows.append(row)
        print(name, round(row["calibrated 50"] / row["zero"], 3), flush=True)
    found = {f"{a} / {b}": median_ratio(rows, a, b) for a, b in RATIOS}
    plain = {**machine(), "bundle": bundle.config.preset, "ratios": found, "models": rows}
    asked.output.with_suffix(".json").write_text(json.dumps(plain, indent=1, default=float) + "\n")
    asked.output.with_suffix(".md").write_text(_table(rows, found))


def _table(rows: list[dict[str, Any]], ratios: dict[str, list[float]]) -> str:
    lines = ["| ratio of MAE, median over models | [95 %] |\n|---|---|\n"]
    lines += [f"| {name} | {m:.3f} [{a:.3f}, {b:.3f}] |\n" for name, (m, a, b) in ratios.items()]
    columns = (
        "zero",
        "calibrated 50",
        "scratch 50",
        "calibrated 500",
        "scratch all",
        "zero coverage",
        "coverage 50",
    )
    lines.append(f"\n| model | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}\n")
    for row in rows:
        cells = [f"{row[c]:.2f}" if "coverage" in c else f"{row[c]:.1f}" for c in columns]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    main()
