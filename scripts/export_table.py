"""The table of docs/export.md: every way to compute a bundle, side by side in one run.

    python scripts/export_table.py BUNDLE DATA... --rows 1000 --output docs/export

BUNDLE has PyTorch weights. For each way: difference of forecasts from PyTorch's, change of the mean absolute error on
test rows of each DATA file with its 95 % interval (bootstrap over conversations), how far a forecast moves with its
neighbours, size of the graphs, time to open them, latency on one CPU thread at batch 1 and 32, the ways taking turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mope.data.load import read_examples
from mope.data.records import LengthData
from mope.data.split import split
from mope.evaluation.bootstrap import Groups, paired_difference
from mope.export.onnx_export import Plan, export_onnx
from mope.export.parity import ask_routed, prompts
from mope.files import write_text
from mope.machine import load_1m, machine
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.inputs import Batch
from mope.predictor.onnx_backend import OnnxBackend, Session, session_options
from mope.types import Request

SCHEMES = ("dynamic", "rows", "static", "weights", "blocks")
NEIGHBOURS = 64
TIMED = {1: 120, 32: 12}
MARKS = ("<!-- table: scripts/export_table.py -->", "<!-- end of table -->")
Floats = NDArray[np.float64]


@dataclass
class Way:
    """One way to compute forecasts, and what was measured of it."""

    name: str
    predict: Callable[[Sequence[Request]], Floats]
    row: dict[str, Any] = field(default_factory=dict)
    tokens: dict[int, Floats] = field(default_factory=dict)
    taken: dict[int, list[float]] = field(default_factory=lambda: {1: [], 32: []})


class Padded(OnnxBackend):
    """All texts of a batch in one run, padded to the longest, as on a GPU."""

    def _runs(self, batch: Batch) -> list[Batch]:
        return [batch]


def exported(source: Path, home: Path) -> dict[str, Path]:
    """A folder with graphs for each int8 scheme; "dynamic" also holds fp32, fp16 and the routed graphs."""
    folders = {}
    for scheme in SCHEMES:
        folders[scheme] = home / scheme
        shutil.copytree(source, folders[scheme], ignore=shutil.ignore_patterns("run", "onnx"))
        config = json.loads((source / layout.CONFIG).read_text())
        write_text(folders[scheme] / layout.CONFIG, json.dumps({**config, "files": {}}))
        bundle = MoPE.from_pretrained(folders[scheme], backend="torch")
        first = scheme == "dynamic"
        export_onnx(bundle, folders[scheme], Plan(first, True, scheme, first))
        print(f"exported {scheme}", flush=True)
    return folders


def ways(folders: dict[str, Path]) -> list[Way]:
    """Everything that is compared; PyTorch first."""
    home = folders["dynamic"]
    reference = MoPE.from_pretrained(home, backend="torch")
    found = [Way("PyTorch fp32", _tokens(reference), _sizes(home, "*.safetensors", "experts/*", "router/*"))]
    for kind in ("fp32", "fp16"):
        found.append(_networks(home, f"networks {kind}", kind))
    found.append(_networks(home, "networks fp32, padded batch", "fp32", Padded))
    for scheme in SCHEMES:
        found.append(_networks(folders[scheme], f"networks int8 {scheme}", "int8"))
        if scheme in ("dynamic", "rows"):
            found.append(_networks(folders[scheme], f"networks int8 {scheme}, padded batch", "int8", Padded))
    for kind in layout.KINDS:
        label = "int8 rows" if kind == "int8" else kind
        found.append(
            _routed(home / layout.onnx_file(layout.ROUTED, kind), f"routed {label}, padded batch", reference)
        )
    found.append(
        _routed(home / layout.onnx_file(layout.ROUTED, "int8"), "routed int8 rows", reference, alone=True)
    )
    return found


def _tokens(bundle: MoPE) -> Callable[[Sequence[Request]], Floats]:
    return lambda requests: np.array([forecast.tokens for forecast in bundle.predict(list(requests))])


def _networks(home: Path, name: str, kind: str, backend: type[OnnxBackend] = OnnxBackend) -> Way:
    bundle = MoPE.from_pretrained(home, backend="torch")
    bundle.backend = backend(home, bundle.config, kind=kind, session=Session())
    start = time.perf_counter()
    bundle.predict("hi")
    opened = time.perf_counter() - start
    pattern = "onnx/*.onnx" if kind == "fp32" else f"onnx/{kind}/*.onnx"
    return Way(name, _tokens(bundle), {**_sizes(home, pattern), "open_s": opened})


def _routed(path: Path, name: str, bundle: MoPE, alone: bool = False) -> Way:
    start = time.perf_counter()
    session = ort.InferenceSession(path, session_options(Session()), providers=["CPUExecutionProvider"])
    opened = time.perf_counter() - start

    def together(requests: Sequence[Request]) -> Floats:
        parts = [requests[i : i + 32] for i in range(0, len(requests), 32)]
        return np.concatenate([ask_routed(session, bundle, part)["tokens"] for part in parts])

    def one_by_one(requests: Sequence[Request]) -> Floats:
        return np.concatenate([ask_routed(session, bundle, [request])["tokens"] for request in requests])

    return Way(name, one_by_one if alone else together, {"bytes": path.stat().st_size, "open_s": opened})


def _sizes(home: Path, *patterns: str) -> dict[str, int]:
    unwanted = {f"{layout.ROUTED}.onnx", layout.ROUTER, layout.FLOORS, "proxy.onnx", "proxy.safetensors"}
    files = {path for pattern in patterns for path in home.glob(pattern) if path.name not in unwanted}
    return {"bytes": sum(path.stat().st_size for path in files)}


def time_them(found: Sequence[Way], requests: Sequence[Request]) -> None:
    """Latency of all ways, taking turns so that a busy moment hits them alike."""
    for size, repeats in TIMED.items():
        for turn in range(repeats):
            part = [requests[(turn * size + place) % len(requests)] for place in range(size)]
            for way in found:
                start = time.perf_counter()
                way.predict(part)
                way.taken[size].append((time.perf_counter() - start) * 1e3)
    for way in found:
        for size, taken in way.taken.items():
            for level in (50, 99):
                way.row[f"batch_{size}_p{level}_ms"] = float(np.percentile(taken, level))


def compare(found: Sequence[Way], parts: dict[str, LengthData]) -> None:
    """Differences from the first way, errors, and what neighbours do."""
    odd = prompts()
    for way in found:
        some = list(next(iter(parts.values())).requests[:NEIGHBOURS])
        together = way.predict(some)
        alone = np.concatenate([way.predict([request]) for request in some])
        way.row["neighbours_largest_tokens"] = float(np.abs(together - alone).max())
        off = np.abs(way.predict(odd) - found[0].predict(odd))
        way.row |= {"prompts_largest_tokens": float(off.max()), "prompts_mean_tokens": float(off.mean())}
        way.row["data"] = {}
        for name, rows in parts.items():
            way.row["data"][name] = _errors(way, found[0], rows)
        print(way.name, json.dumps(way.row), flush=True)


def _errors(way: Way, reference: Way, rows: LengthData) -> dict[str, Any]:
    tokens = way.predict(rows.requests)
    if way is reference:
        reference.tokens[id(rows)] = tokens
    base = reference.tokens[id(rows)]
    off, errors = np.abs(tokens - base), [np.abs(t - rows.lengths) for t in (tokens, base)]
    change = paired_difference(errors[0], errors[1], np.ones(len(rows)), Groups.of(rows.groups))
    return {
        "mae": float(errors[0].mean()), "largest_tokens": float(off.max()), "mean_tokens": float(off.mean()),
        "mae_change": [change.value, change.low, change.high],
    }  # fmt: skip


def without_features(home: Path, parts: dict[str, LengthData]) -> dict[str, Any]:
    """The error of a gateway that computes all features, and of one that knows tokens only."""
    bundle = MoPE.from_pretrained(home, backend="onnx")
    found: dict[str, Any] = {}
    for name, rows in parts.items():
        inputs = bundle.inputs(rows.requests)
        given = {"all": inputs.features, "none": np.full_like(inputs.features, np.nan)}
        for label, features in given.items():
            answer = bundle._answer(rows.requests, replace(inputs, features=features))
            tokens = bundle._column(bundle.config.routing, *answer).tokens
            found.setdefault(name, {})[label] = float(np.abs(tokens - rows.lengths).mean())
    return found


def markdown(document: dict[str, Any]) -> str:
    """The table of a run."""
    names, rows = list(document["rows"]), document["ways"]
    head = [
        "computed by",
        "largest / mean difference, tokens",
        *(f"MAE change, {name} [95 %]" for name in names),
    ]
    head += [
        "moved by neighbours",
        "MB",
        "open, s",
        "batch 1, p50 / p99 ms",
        "batch 32, p50 / p99 ms",
        "p50 to PyTorch's",
    ]
    return "\n".join(
        [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(_line(row, rows[0], names) for row in rows)]
    )


def _line(row: dict[str, Any], first: dict[str, Any], names: Sequence[str]) -> str:
    data = [row["data"][name] for name in names]
    largest = max([row["prompts_largest_tokens"], *(d["largest_tokens"] for d in data)])
    mean = np.mean([d["mean_tokens"] for d in data])
    changes = ["{:+.2f} [{:+.2f}, {:+.2f}]".format(*d["mae_change"]) for d in data]
    if row is first:
        changes = [f"MAE {d['mae']:.1f}" for d in data]
    times = [f"{row[f'batch_{size}_p50_ms']:.1f} / {row[f'batch_{size}_p99_ms']:.0f}" for size in TIMED]
    ratios = " / ".join(f"{row[f'batch_{s}_p50_ms'] / first[f'batch_{s}_p50_ms']:.2f}" for s in TIMED)
    cells = [row["way"], f"{largest:.1f} / {mean:.2f}", *changes, f"{row['neighbours_largest_tokens']:.2f}"]
    cells += [f"{row['bytes'] / 1e6:.1f}", f"{row['open_s']:.2f}" if "open_s" in row else "", *times, ratios]
    return f"| {' | '.join(cells)} |"


def spliced(text: str, table: str) -> str:
    """`text` with `table` between its two marks."""
    before, rest = text.split(MARKS[0])
    return f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


def write(document: dict[str, Any], output: Path) -> None:
    """OUTPUT.json, and the table between the marks of OUTPUT.md."""
    write_text(output.with_suffix(".json"), json.dumps(document, indent=1) + "\n")
    page = output.with_suffix(".md")
    text = page.read_text(encoding="utf-8") if page.is_file() else "\n".join(MARKS) + "\n"
    write_text(page, spliced(text, markdown(document)))


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    asked = parser.parse_args()
    parts = {}
    for path in asked.data:
        data = read_examples([str(path)])
        chosen = np.random.default_rng(0).permutation(split(data)["test"])[: asked.rows]
        parts[path.stem] = data.take(chosen)
    before = load_1m()
    with tempfile.TemporaryDirectory() as scratch:
        folders = exported(asked.bundle, Path(scratch))
        found = ways(folders)
        time_them(found, next(iter(parts.values())).requests)
        during = load_1m()
        compare(found, parts)
        features = without_features(folders["dynamic"], parts)
    rows = [{"way": way.name, **way.row} for way in found]
    document = {
        "machine": {**machine(), "torch": version("torch"), "onnx": version("onnx"), "load_1m_before": before,
                    "load_1m_while_timing": during},
        "rows": {name: len(rows) for name, rows in parts.items()}, "seed": 0, "threads": 1, "ways": rows,
        "mae_by_features": features,
    }  # fmt: skip
    write(document, asked.output)
    print(markdown(document))


if __name__ == "__main__":
    main()
