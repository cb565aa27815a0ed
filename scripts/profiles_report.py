"""The tables of docs/profiles.md: errors of the fits, end-to-end checks, and what borrowing costs."""

from __future__ import annotations

import csv
import gzip
import io
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mope.mapper.build import Measured
from mope.mapper.fit import least_numbers, predict_linear
from mope.mapper.logs import step_points
from mope.mapper.parts import Linear
from mope.mapper.points import LayerPoints, RequestPoints
from mope.mapper.profile import Profile, nearest, same_chip
from mope.mapper.steps import Layered
from mope.mapper.tables import read_points

RESAMPLES = 2000
PURE = Linear(compute=1.0, memory=1.0, fixed=1e-12, elementwise=1e9, waves=1e-9, blend=40.0)
RUNS = (("llama-3.1-8b@rtx-4090", "RTX4090"), ("llama-3.1-8b@rtx-pro-6000", "RTXPRO6000"))
INTRO = """# Hardware profiles

What a step of an engine takes, fitted from public measurements. Made by

    python scripts/profiles.py TABLES --docs docs

from the tables named in each profile's `origin`, with {machine}.
All errors are |fitted / measured - 1|. Nothing here was measured by us: the tables are those of the projects named,
the fits and the checks are ours.

## Kernels: error on points held out

`random`: median over five random folds (interpolation); in brackets the 90th percentile. `range`: the worst median of
four ranges (up to 1/64, 1/16, 1/4 and all of the largest size), each left out in turn (extrapolation).
`roofline`: datasheet rates alone on the same layer table; `three numbers`: a roofline with compute and memory shares
and a constant, held out in the same random folds.

"""
ENDS = """
## Whole steps: against engines that ran

The sum of the kernels and the engine's own time, against measured runs that no number was fitted to. In brackets the
95 % interval of the median, bootstrap over the rows ({n:,} resamples, seed 0).

| profile | run | rows | prefill: median error | decode step: median error | decode step: bias |
|---|---|---|---|---|---|
"""
ENDS_NOTE = """
Splitwise ran a 2023 engine whose decode step never falls below about 43 ms on four and eight GPUs: there the program,
not the GPU, sets the pace, and a sum of kernels is far too low. That is the limit of every profile made from kernel
tables: an engine with a slow program needs a log of its own (`mope fit-profile steps.csv`). The vLLM 0.19 runs are
batches under load; their steps include the attention of prompt chunks, which the check leaves out, hence the bias.
"""
BORROW = """
## Borrowed: what an unmeasured pair costs

Each profile forecast by the nearest other one, as an unmeasured pair would be: decode steps of 1 to 64 sequences and
prefills of 64 to 2,048 tokens. The interval of a forecast marked `uncalibrated` takes the 80th percentile in
quadrature with 0.15, the least half-width of a measured profile.

| numbers from | profiles | median error | 80th percentile of the log error | in use |
|---|---|---|---|---|
"""


def report(done: Mapping[str, Profile], measured: Mapping[str, Sequence[Measured]], tables: Path) -> str:
    """docs/profiles.md."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    text = INTRO.format(machine=f"Python {platform.python_version()}, {packages}")
    text += _kernels(done, measured) + ENDS.format(n=RESAMPLES)
    text += "".join(_splitwise(done, tables)) + "".join(_runs(done, tables)) + ENDS_NOTE
    text += BORROW + "".join(_borrowed(done))
    text += "\n## Plots\n\nFitted against measured, on all points; dotted: 10 %.\n\n"
    return text + "".join(f"![{name}](profiles/{name}.png)\n" for name in sorted(measured))


def _kernels(done: Mapping[str, Profile], measured: Mapping[str, Sequence[Measured]]) -> str:
    head = (
        "| profile | layer: random | range | roofline | three numbers | decode attention: random | range | "
    )
    lines = [head + "prefill attention: random | range | all-reduce: random |", "|---" * 10 + "|"]
    for name in sorted(done):
        profile = done[name]
        if not isinstance(profile.law, Layered):
            continue
        rough = _rough(profile, measured[name])
        cells = [_inside(profile, "linear"), _worst(profile, "linear"), *rough]
        for part in ("attention", "reading"):
            cells += [_inside(profile, part), _worst(profile, part)]
        lines.append(f"| {name} | " + " | ".join([*cells, _inside(profile, "link")]) + " |")
    a10g = (
        "llama-2-7b@a10g: published lines, taken over; largest residual 4.0 ms of a decode step (16 points)."
    )
    return (
        "\n".join(lines) + f"\n\nAn empty cell: not in the tables, taken from the nearest profile. {a10g}\n"
    )


def _inside(profile: Profile, part: str) -> str:
    error = profile.error.get(part)
    return f"{error['inside']['median']:.1%} ({error['inside']['p90']:.1%})" if error else ""


def _worst(profile: Profile, part: str) -> str:
    error = profile.error.get(part)
    ranges = {name: held["median"] for name, held in error["ranges"].items()} if error else {}
    worst = max(ranges, key=lambda name: ranges[name], default="")
    return f"{ranges[worst]:.1%} ({worst.split(' ')[0]})" if worst else ""


def _rough(profile: Profile, measured: Sequence[Measured]) -> tuple[str, str]:
    """The roofline of the datasheet, and one with three fitted numbers, on the layer table."""
    points = next(item.points for item in measured if isinstance(item.points, LayerPoints))
    law = profile.law
    assert isinstance(law, Layered)
    pure = np.abs(predict_linear(law, PURE, points) / points.seconds - 1)
    fold = np.random.default_rng(0).permutation(points.tokens.size) % 5
    three = []
    for f in range(5):
        kept = LayerPoints(points.tokens[fold != f], points.seconds[fold != f])
        start = Linear(fixed=5e-5, elementwise=1e9, waves=1e-9, blend=40.0)
        part = least_numbers(
            start, ("compute", "memory", "fixed"), kept, lambda p, at: predict_linear(law, p, at)
        )
        out = LayerPoints(points.tokens[fold == f], points.seconds[fold == f])
        three.append(np.abs(predict_linear(law, part, out) / out.seconds - 1))
    return f"{np.median(pure):.1%}", f"{np.median(np.concatenate(three)):.1%}"


def _splitwise(done: Mapping[str, Profile], tables: Path) -> list[str]:
    """Mutinifni/splitwise-sim: prefill and token time of Llama-2-70b, batches of equal prompts."""
    text = gzip.decompress((tables / "splitwise/perf_model.csv.gz").read_bytes()).decode()
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["model"] == "llama2-70b"]
    lines = []
    for tp in (2, 4, 8):
        name = f"llama-2-70b@{tp}xa100-80g"
        law = done[name].law
        assert isinstance(law, Layered)
        prefill, decode = [], []
        for row in (row for row in rows if int(row["tensor_parallel"]) == tp):
            size, batch = float(row["prompt_size"]), float(row["batch_size"])
            mean = size + float(row["token_size"]) / 2
            decode.append(float(law.decode(batch, mean).at(batch * mean)) * 1e3 / float(row["token_time"]))
            if batch == 1:
                prefill.append(float(law.prefill(size, 1e9, 0.0, 0.0)) * 1e3 / float(row["prompt_time"]))
        lines.append(_line(name, "Splitwise, 2023", prefill, decode))
    return lines


def _runs(done: Mapping[str, Profile], tables: Path) -> list[str]:
    """LLMServingSim's measured vLLM runs: mean steps over each request's decode window."""
    lines = []
    for name, folder in RUNS:
        law = done[name].law
        assert isinstance(law, Layered)
        [log] = read_points(tables / f"llmservingsim/{folder}_Llama-3.1-8B/vllm_run_requests.jsonl.gz")
        assert isinstance(log, RequestPoints)
        at = step_points(log)
        ratios = []
        for batch, context, read, seconds in zip(at.batch, at.context, at.tokens, at.seconds, strict=True):
            step = float(law.decode(batch, context / batch).at(context))
            step += float(law.rows(batch + read, batch)) - float(law.rows(batch, batch))
            ratios.append(step / seconds)
        lines.append(_line(name, "vLLM 0.19.0, 300 ShareGPT requests", [], ratios))
    return lines


def _line(name: str, run: str, prefill: list[float], decode: list[float]) -> str:
    told = [_median(np.abs(np.array(values) - 1)) if values else "" for values in (prefill, decode)]
    return f"| {name} | {run} | {len(decode)} | {told[0]} | {told[1]} | {np.median(decode) - 1:+.1%} |\n"


def _median(errors: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    means = np.median(rng.choice(errors, (RESAMPLES, errors.size)), axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{np.median(errors):.1%} [{low:.1%}, {high:.1%}]"


def borrowed(done: Mapping[str, Profile]) -> dict[bool, list[float]]:
    """Log errors of borrowed laws, by whether the donor has the same chip."""
    found: dict[bool, list[float]] = defaultdict(list)
    layered = {name: p for name, p in done.items() if isinstance(p.law, Layered)}
    for profile in layered.values():
        # An unmeasured pair: neither this model on this GPU at any width, nor, the second time, this chip at all.
        pair = {n: p for n, p in layered.items() if (p.shape, p.gpu) != (profile.shape, profile.gpu)}
        for among in (pair, {n: p for n, p in pair.items() if not same_chip(p.gpu, profile.gpu)}):
            donor = nearest(profile.shape, profile.gpu, profile.tp, among)
            if donor is not None:
                found[same_chip(donor.gpu, profile.gpu)] += _log_errors(profile, donor)
    return found


def _log_errors(profile: Profile, donor: Profile) -> list[float]:
    own = profile.law
    assert isinstance(own, Layered)
    assert isinstance(donor.law, Layered)
    law = replace(donor.law, shape=profile.shape, gpu=profile.gpu, tp=profile.tp)
    errors = [
        np.log(float(law.decode(b, 1024.0).at(b * 1024)) / float(own.decode(b, 1024.0).at(b * 1024)))
        for b in (1.0, 8.0, 32.0, 64.0)
    ]
    errors += [
        np.log(float(law.prefill(n, 1e9, 0.0, 0.0)) / float(own.prefill(n, 1e9, 0.0, 0.0)))
        for n in (64.0, 256.0, 1024.0, 2048.0)
    ]
    return [abs(float(error)) for error in errors]


def _borrowed(done: Mapping[str, Profile]) -> list[str]:
    from mope.mapper.profile import OTHER_GPU, SAME_GPU

    errors = borrowed(done)
    lines = []
    for same, told, used in (
        (True, "another model, same chip", SAME_GPU),
        (False, "another chip", OTHER_GPU),
    ):
        values = np.array(errors[same])
        median, high = np.expm1(np.median(values)), np.quantile(values, 0.8)
        lines.append(f"| {told} | {values.size // 8} | {median:.1%} | {high:.2f} | {used} |\n")
    return lines
