"""Served models that a bundle has never seen: as it is, calibrated from a log, and predictors of the log alone.

    python scripts/adapt_models.py PROMPTS LENGTHS --more DATA... --once DATA... --work DIR --output docs/adapt/models

PROMPTS and LENGTHS are a pair of tables with many models (alpaca_eval). DIR/base is a bundle of the tables of --more
and --once, without code questions and without any prompt of PROMPTS. 40 models, and in each of five folds another
fifth of the prompts, by hash, are kept from DIR/bundle-FOLD, which is trained from DIR/base, with the fold for its
seed, on the rest and on the tables of --more. Each of the 40 is then calibrated from logs of 50 and of 500 prompts
and judged on the fifth that nobody saw. Bundles that are there are not trained again.

Columns named `told` are of no predictor: the same, had the bundle known for each prompt by how much the known models'
true answers to it are longer than they usually are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from adapt_sources import CODE, share, without
from numpy.typing import NDArray
from rich.progress import track

from mope.adapt.calibrate import errors, fit, forecasts
from mope.adapt.observed import Observed, fold_of
from mope.adapt.standin import ASKED, chosen
from mope.data.load import read_examples
from mope.data.records import Example, LengthData
from mope.data.split import part_of
from mope.machine import machine
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.mixture import routed
from mope.predictor.overlay import Overlay
from mope.training.boosting import fit_lengths
from mope.training.floors import LENGTH
from mope.training.recipe import load_recipe
from mope.training.train import train

HELD_OUT, TEST, FOLDS = 40, 0.2, 5
DRAWS = {50: 5, 500: 1}  # logs of each size that are drawn; 500 prompts are nearly all there are
BASE = (
    "threads=1", "sampling_dropout=0", "optim.rows_per_text=48", "optim.chunk=96", "epochs.proxy=1.5",
    "epochs.proxy_tower=0", "epochs.router=0.2", "epochs.experts=0.2", "epochs.joint=0",
)  # fmt: skip
SETTINGS = (
    "threads=1", "sampling_dropout=0", "optim.rows_per_text=48", "optim.chunk=96", "epochs.proxy=3",
    "epochs.proxy_tower=2", "epochs.router=2", "epochs.experts=2", "epochs.joint=1",
)  # fmt: skip
BLOCK = 64
RESAMPLES = 4000
FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]
Judged = dict[str, FloatArray]  # by what was measured: [P], NaN where a prompt was not for this fold's test


def held_out(models: set[str]) -> list[str]:
    """The models that the bundle must not see."""
    return sorted(models, key=lambda name: share(f"adapt:{name}"))[:HELD_OUT]


def tested(group: str, fold: int) -> bool:
    """Whether a prompt is among the test prompts of a fold."""
    return fold * TEST <= share(f"test:{group}") < (fold + 1) * TEST


def chats(files: list[str]) -> list[Example]:
    """The examples of `files` but code questions."""
    return [e for e in read_examples(files).examples if e.source not in CODE]


def train_base(examples: list[Example], data: LengthData, folder: Path) -> None:
    """A bundle of the preset `minilm` of the examples whose prompts are not in `data`, that of the study."""
    kept = without(examples, data.examples)
    train(load_recipe("minilm", settings=BASE), LengthData(kept), folder, resume=True)


def train_population(data: LengthData, more: list[Example], base: Path, fold: int, folder: Path) -> None:
    """A bundle, from `base`, on all but the held-out models and the fold's test prompts."""
    unseen = set(held_out(set(data.models)))
    known = [e for e in data.examples if e.request.model not in unseen]
    kept = without(known + more, [e for e in data.examples if tested(e.group, fold)])
    recipe = load_recipe("minilm", settings=(*SETTINGS, f"seed={fold}"))
    train(recipe, LengthData(kept), folder, origin=base, resume=True)


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

    def parts(self, model: int) -> tuple[Rows, Rows]:
        """The prompts that the model answered: those of the test, and those a log is drawn from."""
        there = ~np.isnan(self.lengths[model])
        return np.flatnonzero(self.test & there), np.flatnonzero(~self.test & there)

    def spread(self, found: Judged, rows: Rows) -> Judged:
        """Values at `rows` as values at all prompts, NaN elsewhere."""
        out = {name: np.full(self.lengths.shape[1], np.nan) for name in found}
        for name, values in found.items():
            out[name][rows] = values
        return out

    def observed(self, model: int, rows: Rows, as_known: int) -> Observed:
        """Rows as `calibrate` would lay them out."""
        said, limit = self.said, self.limits[model, rows]
        return Observed(
            np.log1p(np.minimum(self.lengths[model, rows], limit)), np.log1p(limit), np.ones(len(rows)), rows,
            self.fold[rows], said.features[rows], said.experts[as_known, rows].astype(np.float64),
            said.chances[as_known, rows].astype(np.float64),
        )  # fmt: skip


def world(data: LengthData, said: Said, groups: list[str], fold: int) -> World:
    """The data as a table."""
    names, place = sorted(set(data.models)), {group: i for i, group in enumerate(groups)}
    lengths = np.full((len(names), len(groups)), np.nan)
    limits = np.full(lengths.shape, np.inf)
    index = {name: i for i, name in enumerate(names)}
    for example in data.examples:
        at = index[example.request.model or ""], place[example.group]
        lengths[at] = float(np.median(example.lengths))
        limits[at] = np.inf if example.limit is None else example.limit
    test = np.array([tested(group, fold) for group in groups])
    read = np.array([part_of(group) == "train" for group in groups])
    return World(names, lengths, limits, test, np.array([fold_of(g) for g in groups]), read, said)


def told(bundle: MoPE, here: World) -> World:
    """The world of a bundle that reads every prompt as the known models' true answers to it would have it.

    All its quantiles of a prompt are moved by the mean over known models of log1p(length), less that of its medians,
    each relative to the model's own mean. A prompt that no known model answered stays.
    """
    config, known = bundle.config, [n for n in here.names if n in bundle.config.models]
    truth = np.log1p(here.lengths[[here.names.index(n) for n in known]])
    middle = config.quantiles.index(0.5)
    places = [1 + config.models.index(n) for n in known]
    said = np.stack([
        routed(
            config.routing, here.said.experts[k].astype(np.float64), here.said.chances[k].astype(np.float64),
            config.quantiles,
        )[:, middle]
        for k in places
    ])  # fmt: skip
    answered = ~np.isnan(truth).all(axis=0)
    effects = []
    for table in (truth, said):
        inside = table[:, answered]
        effects.append(np.nanmean(inside - np.nanmean(inside, axis=1, keepdims=True), axis=0))
    move = np.zeros(truth.shape[1])
    move[answered] = effects[0] - effects[1]
    moved = replace(
        here.said, proxy=here.said.proxy + move,
        experts=(here.said.experts + move[:, None, None]).astype(np.float32),
    )  # fmt: skip
    return replace(here, said=moved)


def judge(bundle: MoPE, here: World, model: int, sizes: Iterable[int] = DRAWS) -> Judged:
    """What the bundle says of the test prompts of one held-out model, as it is and calibrated on logs of each of
    `sizes`: absolute errors in tokens and coverage, means over draws of the log.
    """
    test, pool = here.parts(model)
    plain = here.observed(model, test, 0)
    zero = errors(bundle, plain, forecasts(bundle, plain, Overlay("zero")))
    found = {"zero": zero["mae"], "zero coverage": zero["coverage"]}
    for size in sizes:
        rows = [_calibrated(bundle, here, model, log, test) for log in _logs(here, pool, model, size)]
        found[f"calibrated {size}"] = np.mean([row["mae"] for row in rows], axis=0)
        found[f"coverage {size}"] = np.mean([row["coverage"] for row in rows], axis=0)
    return here.spread(found, test)


def judge_told(bundle: MoPE, here: World, model: int) -> Judged:
    """The errors of `judge` on logs of 50, in the world of `told`."""
    found = judge(bundle, here, model, [50])
    return {"told zero": found["zero"], "told 50": found["calibrated 50"]}


def judge_alone(here: World, model: int) -> Judged:
    """Absolute errors, in tokens, of predictors that know the same logs, or the whole pool, and nothing else."""
    test, pool = here.parts(model)
    found = {f"{name} all": row for name, row in scratch(here, model, pool, test).items()}
    for size in DRAWS:
        alone = [scratch(here, model, log, test) for log in _logs(here, pool, model, size)]
        found |= {f"{name} {size}": np.mean([row[name] for row in alone], axis=0) for name in alone[0]}
    return here.spread(found, test)


def _logs(here: World, pool: Rows, model: int, size: int) -> list[Rows]:
    """Every draw of a log. Prompts that no training has seen come first: so it is with a log."""
    found = []
    for draw in range(DRAWS[size]):
        drawn = np.random.default_rng([draw, model]).permutation(pool)
        found.append(np.sort(drawn[np.argsort(here.read[drawn], kind="stable")][:size]))
    return found


def _calibrated(bundle: MoPE, here: World, model: int, log: Rows, test: Rows) -> Judged:
    """What `mope calibrate` would come to, without its refusal."""
    truth, cut = np.log1p(here.lengths[model, log]), here.lengths[model, log] >= here.limits[model, log]
    some = slice(None, None, -(-len(log) // ASKED))
    as_known = chosen(here.said.proxy[:, log[some]], truth[some], cut[some], 0)
    overlay, _ = fit(bundle, here.observed(model, log, as_known), Overlay("new"))
    seen = here.observed(model, test, as_known)
    return errors(bundle, seen, forecasts(bundle, seen, overlay))


def _constant(features: NDArray[np.float32], lengths: FloatArray, asked: NDArray[np.float32]) -> FloatArray:
    return np.full(len(asked), float(np.median(lengths)))


def _trees(features: NDArray[np.float32], lengths: FloatArray, asked: NDArray[np.float32]) -> FloatArray:
    trees = fit_lengths(features, np.log1p(lengths), LENGTH, 0)
    out: FloatArray = np.expm1(trees.margins(asked)[:, 0])
    return out


ALONE: dict[str, Callable[..., FloatArray]] = {"constant": _constant, "trees": _trees}


def scratch(here: World, model: int, log: Rows, test: Rows) -> Judged:
    """Errors of predictors that know nothing but the log, and of the one that errs less on fifths of it."""
    features, lengths, truth = here.said.features, here.lengths[model], here.lengths[model, test]
    found, inside = {}, {}
    for name, predictor in ALONE.items():
        found[name] = np.abs(truth - predictor(features[log], lengths[log], features[test]))
        off = 0.0
        for k in np.unique(here.fold[log]):
            known, asked = log[here.fold[log] != k], log[here.fold[log] == k]
            off += np.abs(lengths[asked] - predictor(features[known], lengths[known], features[asked])).sum()
        inside[name] = off
    return found | {"scratch": found[min(inside, key=lambda name: inside[name])]}


def _either(rows: list[FloatArray]) -> FloatArray:
    """The value of the fold that has one."""
    out = rows[0].copy()
    for row in rows[1:]:
        out = np.where(np.isnan(out), row, out)
    return out


def judge_fold(data: LengthData, work: Path, fold: int) -> list[Judged]:
    """Judge the fold's bundle on every held-out model."""
    folder = work / f"bundle-{fold}"
    bundle = MoPE.from_pretrained(folder, backend="torch", overlay="none")
    groups = sorted(set(data.groups))
    said = Said.of(bundle, data, groups, work / f"said-{fold}.npz")
    here = world(data, said, groups, fold)
    models = [here.names.index(name) for name in held_out(set(data.models))]
    oracle = told(bundle, here)
    return [
        judge(bundle, here, model) | judge_told(bundle, oracle, model) | judge_alone(here, model)
        for model in track(models, f"fold {fold}")
    ]


@dataclass(frozen=True, eq=False)
class Table:
    """Errors [models, P] by name, of all folds together, and resamples of models [R, M] and of prompts [R, P]."""

    errors: Judged
    models: NDArray[np.int64]
    prompts: NDArray[np.float64]

    @classmethod
    def of(cls, folds: list[list[Judged]]) -> Table:
        """Each prompt is in the test of one fold at most."""
        names = folds[0][0]
        joined = {
            name: np.stack([
                _either([fold[m][name] for fold in folds]) for m in range(len(folds[0]))
            ]) for name in names
        }  # fmt: skip
        count, size = joined["zero"].shape
        rng = np.random.default_rng(0)
        models = rng.integers(count, size=(RESAMPLES, count))
        prompts = rng.multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(np.float64)
        return cls(joined, models, prompts)

    def mean(self, name: str, weights: FloatArray) -> FloatArray:
        """The mean of a column for each model under weights of prompts [R, P], [R, M]; `best N` is the lower of
        constant and trees.
        """
        if name.startswith("best "):
            return np.minimum(*(self.mean(name.replace("best", one), weights) for one in ALONE))
        values = self.errors[name]
        there = ~np.isnan(values)
        return (weights @ np.where(there, values, 0.0).T) / (weights @ there.T.astype(np.float64))

    def means(self, name: str) -> FloatArray:
        """The mean of a column for each model, [M]."""
        return self.mean(name, np.ones((1, self.prompts.shape[1])))[0]

    def ratio(self, above: str, below: str) -> list[float]:
        """The median over models of a ratio of errors; its 95 % interval by bootstrap over models and prompts."""
        drawn = self.mean(above, self.prompts) / self.mean(below, self.prompts)
        low, high = np.quantile(np.median(np.take_along_axis(drawn, self.models, 1), axis=1), [0.025, 0.975])
        return [float(np.median(self.means(above) / self.means(below))), float(low), float(high)]


RATIOS = (
    ("calibrated 50", "zero"), ("calibrated 50", "scratch 50"), ("calibrated 50", "best 50"),
    ("calibrated 50", "constant 50"), ("calibrated 50", "trees 50"), ("calibrated 500", "zero"),
    ("calibrated 500", "scratch all"), ("calibrated 500", "best all"), ("told 50", "told zero"),
    ("told zero", "zero"),
)  # fmt: skip
COLUMNS = (
    "zero", "calibrated 50", "scratch 50", "calibrated 500", "scratch all", "zero coverage", "coverage 50",
    "coverage 500",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts")
    parser.add_argument("lengths")
    parser.add_argument("--more", nargs="+", required=True)
    parser.add_argument("--once", nargs="+", required=True)
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    data = read_examples([asked.prompts, asked.lengths])
    more = chats(asked.more)
    base = asked.work / "base"
    if not (base / layout.CONFIG).is_file():
        train_base(chats(asked.once) + more, data, base)
    for fold in range(asked.folds):
        folder = asked.work / f"bundle-{fold}"
        if not (folder / layout.CONFIG).is_file():
            train_population(data, more, base, fold, folder)
    folds = [judge_fold(data, asked.work, fold) for fold in range(asked.folds)]
    found = Table.of(folds)
    ratios = {f"{a} / {b}": found.ratio(a, b) for a, b in RATIOS}
    single = {f"{a} / {b}": [Table.of([f]).ratio(a, b) for f in folds] for a, b in RATIOS[:3]}
    names = held_out(set(data.models))
    columns = {name: found.means(name) for name in COLUMNS}
    rows = [
        {"model": model} | {name: float(columns[name][i]) for name in COLUMNS}
        for i, model in enumerate(names)
    ]
    tests = [int(np.isfinite(f[0]["zero"]).sum()) for f in folds]
    plain = {**machine(), "test prompts": tests, "ratios": ratios, "by fold": single, "models": rows}
    asked.output.with_suffix(".json").write_text(json.dumps(plain, indent=1) + "\n")
    asked.output.with_suffix(".md").write_text(_table(rows, ratios))


def _table(rows: list[dict[str, Any]], ratios: dict[str, list[float]]) -> str:
    lines = ["| ratio of MAE, median over models | [95 %] |\n|---|---|\n"]
    lines += [f"| {name} | {m:.3f} [{a:.3f}, {b:.3f}] |\n" for name, (m, a, b) in ratios.items()]
    lines.append(f"\n| model | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}\n")
    for row in rows:
        cells = [f"{row[c]:.0%}" if "coverage" in c else f"{row[c]:.0f}" for c in COLUMNS]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    main()
