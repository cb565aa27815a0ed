"""How much of what can be known a bundle knows: castillo's ten answers a prompt, model by model.

    python scripts/adapt_castillo.py PROMPTS LENGTHS [--bundle BUNDLE] --output docs/adapt/castillo

On the test part, which training never saw: skill = (constant - bundle) / (constant - floor) of absolute errors. The
constant is the median of the model's training answers, the floor the median of the same prompt's other nine answers.

Beside the bundle stands what no predictor has: boosted trees that are told how long the other twelve models' median
answers to the very same prompt were.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mope.data.load import read_examples
from mope.data.records import LengthData
from mope.data.split import split
from mope.evaluation import metrics
from mope.evaluation.bootstrap import Interval, interval
from mope.evaluation.rows import Rows, collect
from mope.machine import machine
from mope.predictor.bundle import MoPE

FloatArray = NDArray[np.float64]


def floors(rows: Rows) -> FloatArray:
    """Each answer's distance to the median of its prompt's others; only sums over whole prompts are used."""
    errors = [
        metrics.leave_one_out_errors(e.lengths) if len(e.lengths) > 1 else np.array([np.nan])
        for e in rows.data.examples
    ]
    return np.concatenate(errors)


def skill(
    rows: Rows, where: NDArray[np.bool_], constant: float, said: FloatArray, floor: FloatArray
) -> Interval:
    """The skill on some rows, with its interval over prompts."""
    where = where & ~np.isnan(floor)
    weights = rows.weights[where]
    truth = rows.truth[where]
    parts = [np.abs(truth - constant), np.abs(truth - said[where]), floor[where]]
    sums = rows.groups.take(where).sums(*(weights * part for part in parts))
    return interval(lambda s: metrics.skill(s[..., 0], s[..., 1], s[..., 2]), sums)


def told(train: LengthData, test: LengthData, models: list[str]) -> dict[tuple[str, str], float]:
    """By (model, prompt) of the test part: tokens, by trees that know the other models' median answers to it."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    known, asked = medians(train, models), medians(test, models)
    level = np.nanmean(known[1], axis=1)[:, None]
    found = {}
    for i, model in enumerate(models):
        rest = np.arange(len(models)) != i
        seen, here = ~np.isnan(known[1][i]), ~np.isnan(asked[1][i])
        trees = HistGradientBoostingRegressor(
            loss="absolute_error", max_iter=300, learning_rate=0.05, random_state=0
        ).fit((known[1] - level)[rest][:, seen].T, known[1][i, seen])
        said = np.expm1(trees.predict((asked[1] - level)[rest][:, here].T))
        found |= {(model, prompt): float(n) for prompt, n in zip(np.array(asked[0])[here], said, strict=True)}
    return found


def medians(data: LengthData, models: list[str]) -> tuple[list[str], FloatArray]:
    """Prompts, and log1p of each model's median answer to each, [M, P]; NaN where there is none."""
    prompts = sorted(set(data.groups))
    place = {prompt: i for i, prompt in enumerate(prompts)}
    out = np.full((len(models), len(prompts)), np.nan)
    for e in data.examples:
        out[models.index(e.request.model or ""), place[e.group]] = np.log1p(np.median(e.lengths))
    return prompts, out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts")
    parser.add_argument("lengths")
    parser.add_argument("--bundle", default=None)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    data, bundle = read_examples([asked.prompts, asked.lengths]), MoPE.from_pretrained(asked.bundle)
    rows, train = collect(bundle, data, "test"), data.take(split(data)["train"])
    floor, said = floors(rows), rows.columns[rows.default].tokens
    models = np.array(rows.data.models)[rows.example]
    names = sorted(set(data.models))
    oracle = told(train, rows.data, names)
    best = np.array([oracle[e.request.model or "", e.group] for e in rows.data.examples])[rows.example]
    found = []
    for name in names:
        known = [n for e in train.examples if e.request.model == name for n in e.lengths]
        here = models == name
        got = skill(rows, here, float(np.median(known)), said, floor)
        mean = {
            "constant": np.abs(rows.truth[here] - np.median(known)), "bundle": np.abs(rows.truth - said)[here],
            "floor": floor[here],
        }  # fmt: skip
        errors = {
            key: metrics.mean(v[~np.isnan(v)], rows.weights[here][~np.isnan(v)]) for key, v in mean.items()
        }
        found.append(
            {
                "model": name,
                "prompts": len(set(rows.example[here])),
                **errors,
                "skill": list(_ends(got)),
                "oracle": list(_ends(skill(rows, here, float(np.median(known)), best, floor))),
            }
        )
        print(name, found[-1]["skill"], flush=True)
    plain = {**machine(), "bundle": asked.bundle or "the one that ships", "models": found}
    asked.output.with_suffix(".json").write_text(json.dumps(plain, indent=1, default=float) + "\n")


def _ends(value: Interval) -> tuple[float, float, float]:
    return value.value, value.low, value.high


if __name__ == "__main__":
    main()
