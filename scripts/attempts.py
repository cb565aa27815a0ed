"""Why does a routed mixture (not) beat the proxy? Every remedy on the same split, from finished runs.

    python scripts/attempts.py DATA... --run BUNDLE [--run BUNDLE ...] --output docs/attempts

Each BUNDLE is an output folder of `mope train` that still has its `run/` folder: the stages in it are loaded,
not trained again. Writes OUTPUT.json and OUTPUT.md. Remedies are compared on the test part, which chose none of
them; the validation column is what a choice must be made by.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from mope.data.load import read_examples
from mope.data.records import LengthData
from mope.evaluation.bootstrap import Draws, Groups, holm, mean_intervals, paired_difference
from mope.files import write_text
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.inputs import Inputs
from mope.predictor.mixture import mix
from mope.predictor.router import softmax
from mope.training.fit import precision_of
from mope.training.recipe import Recipe, overlay
from mope.training.result import Trained
from mope.training.stages import use_threads
from mope.training.train import Run
from mope.types import BUCKETS

FloatArray = NDArray[np.float64]
PARTS = ("validation", "test")
DRAWS = Draws(n_boot=10_000)  # eleven comparisons: with fewer draws Holm could not go below 0.02


def load_run(folder: Path, data: LengthData) -> Run:
    """A finished run with its networks in memory."""
    recipe = overlay(Recipe(), json.loads((folder / "run" / "recipe.json").read_text()), str(folder))
    use_threads(recipe.threads)
    run = Run(recipe, data, folder, Progress(disable=True))
    run.learn()
    return run


def _bundle(run: Run, networks: Mapping[str, Any]) -> MoPE:
    return Trained(run.config, dict(networks), {}, run.lexical, run.floors, run.tokenizer).bundle()


def _outputs(
    run: Run, networks: Mapping[str, Any], inputs: Inputs, names: Sequence[str] = ()
) -> dict[str, FloatArray]:
    """What the named networks (all but the trunk) say of each row."""
    half = str(precision_of(run.recipe)).startswith("bf16")  # what the networks were validated in
    asked = list(names) or [name for name in networks if name != layout.TRUNK]
    with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16, enabled=half):
        return _bundle(run, networks).run(asked, inputs)


def variants(run: Run, part: str) -> dict[str, tuple[FloatArray, int]]:
    """Median forecast in tokens [n] of every way to route, and how many upper networks it runs a prompt."""
    networks, requests = run.networks, run.split[part].requests
    inputs = _bundle(run, networks).inputs(requests)
    levels, rows = run.config.quantiles, np.arange(len(inputs))
    outputs = _outputs(run, networks, inputs)
    if run.joint:
        tuned = _outputs(run, {**networks, **run.joint}, inputs, list(run.joint))
        outputs |= {f"joint {name}": values for name, values in tuned.items()}

    def stacked(prefix: str = "") -> FloatArray:
        return np.stack([outputs[prefix + bucket] for bucket in BUCKETS], axis=1)

    def median(quantiles: FloatArray) -> FloatArray:
        return np.expm1(quantiles[:, levels.index(0.5)])

    experts, proxy = stacked(), outputs[layout.PROXY]
    lexical = run.lexical.probabilities(requests, inputs.features).astype(np.float64)
    routers = {"lexical router": (lexical, 0)}
    if layout.ENCODER_ROUTER in networks:
        encoder = softmax(outputs[layout.ENCODER_ROUTER])
        routers["encoder router"] = (encoder, 1)
        routers["both routers averaged"] = ((encoder + lexical) / 2, 1)
    found: dict[str, tuple[FloatArray, int]] = {"proxy": (median(proxy), 1)}
    for name, (p, cost) in routers.items():
        found[f"{name}, hard"] = (median(experts[rows, p.argmax(1)]), cost + 1)
        found[f"{name}, soft"] = (median(mix(experts, p, levels)), cost + 3)
    four = np.concatenate([experts, proxy[:, None]], axis=1)
    p = routers.get("both routers averaged", routers["lexical router"])[0]
    found["soft, proxy as a fourth expert of weight 1/2"] = (
        median(mix(four, np.concatenate([p / 2, np.full((len(p), 1), 0.5)], axis=1), levels)), 5,
    )  # fmt: skip
    if run.joint:
        joint, q = stacked("joint "), softmax(outputs[f"joint {layout.ENCODER_ROUTER}"])
        found["joint mixture density, hard"] = (median(joint[rows, q.argmax(1)]), 2)
        found["joint mixture density, soft"] = (median(mix(joint, q, levels)), 4)
        found["joint mixture density, soft, both routers"] = (
            median(mix(joint, (q + lexical) / 2, levels)),
            4,
        )
    true = run.bounds.bucket(run.split[part].lengths)
    found["oracle router (no user gets this)"] = (median(experts[rows, true]), 1)
    return found


@dataclass(frozen=True)
class Errors:
    """Absolute errors [n] by variant and part, on the same rows for every seed, and what each variant costs."""

    name: str
    seeds: int
    cost: dict[str, int]
    by_part: dict[str, dict[str, FloatArray]]
    groups: Groups


def errors_of(run: Run, name: str) -> Errors:
    """The errors of one run."""
    found = {part: variants(run, part) for part in PARTS}
    by_part = {
        part: {k: np.abs(tokens - run.split[part].lengths) for k, (tokens, _) in found[part].items()}
        for part in PARTS
    }
    cost = {k: networks for k, (_, networks) in found["test"].items()}
    return Errors(name, 1, cost, by_part, Groups.of(run.split["test"].groups))


def pooled(runs: list[Errors]) -> Errors:
    """Errors averaged over seeds row by row: the expected error of a run of this recipe."""
    shared = [k for k in runs[0].cost if all(k in other.cost for other in runs)]
    by_part = {
        part: {k: np.mean([r.by_part[part][k] for r in runs], axis=0) for k in shared} for part in PARTS
    }
    name = f"mean of {len(runs)} seeds ({', '.join(r.name for r in runs)})"
    return Errors(name, len(runs), {k: runs[0].cost[k] for k in shared}, by_part, runs[0].groups)


def compare(errors: Errors) -> list[dict[str, Any]]:
    """One row a variant: MAE on both parts, and on test the paired difference from the proxy, Holm-corrected."""
    test = errors.by_part["test"]
    weights = np.ones(len(test["proxy"]))
    maes = mean_intervals(test, weights, errors.groups)
    rows = []
    for variant, validation in errors.by_part["validation"].items():
        row: dict[str, Any] = {
            "run": errors.name, "seeds": errors.seeds, "variant": variant, "upper_networks": errors.cost[variant],
            "validation_mae": float(validation.mean()),
            "test_mae": [maes[variant].value, maes[variant].low, maes[variant].high],
        }  # fmt: skip
        if variant != "proxy":
            gap = paired_difference(test[variant], test["proxy"], weights, errors.groups, DRAWS)
            row |= {"minus_proxy": [gap.value, gap.low, gap.high], "p": gap.p}
        rows.append(row)
    tested = [row for row in rows if "p" in row]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = [
        "| run | variant | upper networks | validation MAE | test MAE [95 %] | minus proxy [95 %] | p (Holm) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gap = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*row["minus_proxy"]) if "p" in row else ""
        p = f"{row['p_holm']:.3f}" if "p" in row else ""
        test = "{:.1f} [{:.1f}, {:.1f}]".format(*row["test_mae"])
        lines.append(
            f"| {row['run']} | {row['variant']} | {row['upper_networks']} | {row['validation_mae']:.1f} "
            f"| {test} | {gap} | {p} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the arguments, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--run", action="append", type=Path, required=True, help="a bundle folder with run/")
    parser.add_argument(
        "--pool", action="store_true", help="the runs are seeds of one recipe: also average them"
    )
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    arguments = parser.parse_args()
    data = read_examples(arguments.data)
    runs = [errors_of(load_run(folder, data), folder.name) for folder in arguments.run]
    rows = [row for errors in runs for row in compare(errors)]
    if arguments.pool and len(runs) > 1:
        rows += compare(pooled(runs))
    write_text(arguments.output.with_suffix(".json"), json.dumps(rows, indent=2) + "\n")
    write_text(arguments.output.with_suffix(".md"), markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
