"""How often the total of a file of prompts lies in its 80 % interval: three ways to add forecasts up.

    python scripts/cost_coverage.py BUNDLE DATA [--foreign FILE ...] [--output docs/cost]

Files of 10, 100 and 1,000 conversations are drawn with replacement from the test part. (a) adds the bounds up,
(b) draws every request on its own, (c) is `mope.totals.totals` with its shared errors, whose sizes are chosen on the
calibration part: the conversation's by the correlation of normal scores within conversations, the file's as
the one whose intervals score best (interval score of Gneiting and Raftery 2007, relative to the total).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.cost import conversations
from mope.data.load import read_examples
from mope.data.records import LengthData
from mope.data.split import split
from mope.files import write_text
from mope.machine import machine
from mope.predictor.bundle import MoPE
from mope.totals import DEFAULT, HIGH, LOW, Curves, Shared, length_curves, totals

FloatArray = NDArray[np.float64]
SIZES = (10, 100, 1000)
DRAWS, COPIES, OUTER, INNER = 1000, 8, 100, 200
FILE_SHARES = (0.0, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01)
LONGEST = 50  # turns of the conversations that the correlation is taken from: pairs grow with the square


@dataclass(frozen=True)
class Part:
    """Forecasts and truth of one part: true tokens and bounds [n], conversation [n] of `count`."""

    curves: Curves
    truth: FloatArray
    low: FloatArray
    high: FloatArray
    groups: NDArray[np.int64]

    @property
    def count(self) -> int:
        return int(self.groups.max()) + 1

    def sums(self, values: FloatArray) -> FloatArray:
        """Values [n] by conversation."""
        return np.bincount(self.groups, values, self.count)


def forecast(bundle: MoPE, data: LengthData) -> Part:
    """Every request of `data` forecast; its conversations are the groups that the split keeps whole."""
    found = bundle.predict(data.requests)
    low, high = (np.array([getattr(f, end) for f in found]) for end in ("low", "high"))
    groups = conversations(data.requests, data.groups)
    return Part(length_curves(found), data.lengths, low, high, groups)


def correlation(part: Part) -> float:
    """Correlation of normal scores of two answers of one conversation, over all pairs."""
    logs = np.log1p(part.truth)
    place = (logs[:, None] > part.curves.offset[:, 1:] + part.curves.slope[:, 1:] * part.curves.scores).sum(
        axis=1
    )
    rows = np.arange(len(logs))
    steep = np.maximum(part.curves.slope[rows, place], 1e-3)
    scores = np.clip((logs - part.curves.offset[rows, place]) / steep, -4, 4)
    centred = scores - scores.mean()
    turns, sums, squares = part.sums(np.ones(len(logs))), part.sums(centred), part.sums(centred**2)
    kept = (turns > 1) & (turns <= LONGEST)
    pairs = (turns * (turns - 1))[kept].sum()
    return float((sums**2 - squares)[kept].sum() / pairs / centred.var())


def conversation_draws(part: Part, shared: Shared, seed: int) -> FloatArray:
    """Tokens of each conversation, drawn `COPIES` times under one error of the file: [count * COPIES, DRAWS]."""
    found = np.zeros((part.count, COPIES, DRAWS))
    common = np.random.default_rng(seed).standard_normal(DRAWS) * np.sqrt(shared.file)
    alone, own = np.sqrt(1 - shared.file - shared.conversation), np.sqrt(shared.conversation)
    for copy in range(COPIES):
        random = np.random.default_rng((seed, copy))
        for group in range(part.count):
            rows = np.flatnonzero(part.groups == group)
            scores = random.standard_normal((len(rows), DRAWS)) * alone
            scores += common + random.standard_normal(DRAWS) * own
            found[group, copy] = part.curves.at(np.clip(scores, -3.5, 3.5), rows).sum(axis=0)
    return found.reshape(-1, DRAWS)


def picked(
    count: int, size: int, files: int, random: np.random.Generator, among: Sequence[int]
) -> FloatArray:
    """How often each conversation stands in each drawn file: [files, count]."""
    chosen = np.asarray(among)[random.integers(0, len(among), (files, size))]
    cells = chosen + count * np.arange(files)[:, None]
    return np.bincount(cells.ravel(), minlength=files * count).reshape(files, count).astype(np.float64)


def intervals(part: Part, times: FloatArray, draws: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Ends of the 80 % interval of each file's total; without draws, the sums of the bounds."""
    if draws is None:
        return times @ part.sums(part.low), times @ part.sums(part.high)
    copies = np.arange(COPIES)
    spread = times[:, :, None] // COPIES + (copies < times[:, :, None] % COPIES)
    found = spread.reshape(len(times), -1) @ draws
    low, high = np.quantile(found, [LOW, HIGH], axis=1)
    return low, high


def judge(
    part: Part, size: int, draws: FloatArray | None, seed: int, among: Sequence[int] | None = None
) -> dict[str, float]:
    """Coverage, width and interval score of files of `size` conversations; the last two relative to the total."""
    random = np.random.default_rng((seed, size))
    times = picked(part.count, size, INNER, random, range(part.count) if among is None else among)
    low, high = intervals(part, times, draws)
    truth = times @ part.sums(part.truth)
    missed = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    width = high - low
    return {
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
        "width": float((width / truth).mean()),
        "score": float(((width + missed * 2 / (LOW + 1 - HIGH)) / truth).mean()),
    }


def choose(part: Part, seed: int) -> tuple[Shared, list[dict[str, Any]]]:
    """The shared errors that score best on the calibration part, and what every choice gives."""
    own = round(max(0.0, correlation(part)), 2)
    tried = []
    for share in FILE_SHARES:
        shared = Shared(share, own)
        draws = conversation_draws(part, shared, seed)
        rows = {size: judge(part, size, draws, seed) for size in SIZES}
        tried.append(
            {
                "file": share,
                "conversation": own,
                "score": sum(r["score"] for r in rows.values()),
                "sizes": rows,
            }
        )
    best = min(tried, key=lambda row: row["score"])
    return Shared(best["file"], own), tried


def with_interval(part: Part, size: int, draws: FloatArray | None, seed: int) -> dict[str, Any]:
    """`judge`, with a 95 % interval of the coverage over resamples of the part's conversations."""
    found: dict[str, Any] = judge(part, size, draws, seed)
    random = np.random.default_rng((seed, 1))
    outer = [random.integers(0, part.count, part.count) for _ in range(OUTER)]
    covered = [judge(part, size, draws, seed + i + 1, among)["coverage"] for i, among in enumerate(outer)]
    found["coverage_95"] = [float(v) for v in np.quantile(covered, [0.025, 0.975])]
    return found


def foreign(bundle: MoPE, path: Path, rows: int, seed: int) -> dict[str, Any]:
    """The total of prompts of another kind than the bundle learned from, beside its forecast."""
    data = read_examples([path])
    data = data.take(np.random.default_rng(seed).permutation(len(data))[:rows])
    part = forecast(bundle, data)
    low, value, high = np.quantile(totals({"t": part.curves}, part.groups, seed=seed)["t"], [LOW, 0.5, HIGH])
    return {
        "data": path.stem,
        "prompts": len(data),
        "true": float(part.truth.sum()),
        "low": low,
        "value": value,
        "high": high,
    }


def markdown(document: dict[str, Any]) -> str:
    """The tables for docs/cost.md."""
    lines = [
        "| conversations in the file | way | coverage (95 % interval) | mean width, share of the total |",
        "|---|---|---|---|",
    ]
    for row in document["test"]:
        ends = " to ".join(f"{100 * v:.0f}" for v in row["coverage_95"])
        told = f"{100 * row['coverage']:.0f} % ({ends})"
        lines.append(f"| {row['size']:,} | {row['way']} | {told} | {100 * row['width']:.1f} % |")
    lines += [
        "",
        "| data | prompts | true tokens | forecast [80 %] | true / forecast |",
        "|---|---|---|---|---|",
    ]
    for row in document["foreign"]:
        told = f"{row['value']:,.0f} [{row['low']:,.0f} to {row['high']:,.0f}]"
        lines.append(
            f"| {row['data']} | {row['prompts']:,} | {row['true']:,.0f} | {told} | {row['true'] / row['value']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Forecast both parts, choose on one, measure on the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("data")
    parser.add_argument("--foreign", nargs="*", type=Path, default=[])
    parser.add_argument("--foreign-rows", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="path without suffix")
    arguments = parser.parse_args()
    bundle, data = MoPE.from_pretrained(arguments.bundle), read_examples([arguments.data])
    parts = {name: forecast(bundle, data.take(split(data)[name])) for name in ("calibration", "test")}
    chosen, tried = choose(parts["calibration"], arguments.seed)
    test = parts["test"]
    ways = {
        "(a) sum of bounds": None,
        "(b) independent": conversation_draws(test, Shared(0.0, 0.0), arguments.seed),
        "(c) shared errors": conversation_draws(test, DEFAULT, arguments.seed),
    }
    document = {
        "machine": machine(), "seed": arguments.seed,
        "backend": bundle.backend.name, "routing": bundle.config.routing,
        "rows": {name: len(part.truth) for name, part in parts.items()},
        "conversations": {name: part.count for name, part in parts.items()},
        "correlation": {name: correlation(part) for name, part in parts.items()},
        "chosen": {"file": chosen.file, "conversation": chosen.conversation},
        "used": {"file": DEFAULT.file, "conversation": DEFAULT.conversation}, "tried": tried,
        "test": [
            {"size": size, "way": way, **with_interval(test, size, draws, arguments.seed)}
            for size in SIZES for way, draws in ways.items()
        ],
        "foreign": [foreign(bundle, path, arguments.foreign_rows, arguments.seed) for path in arguments.foreign],
    }  # fmt: skip
    if arguments.output:
        write_text(arguments.output.with_suffix(".json"), json.dumps(document, indent=2) + "\n")
    print(f"chosen on calibration: {document['chosen']}, used: {document['used']}")
    print(markdown(document))


if __name__ == "__main__":
    main()
