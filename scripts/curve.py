"""Error against milliseconds: depth of the encoder and length of what it reads, on validation rows.

    python scripts/curve.py DATA... --bundle BUNDLE [--bundle BUNDLE ...] --output docs/curve

Each BUNDLE has int8 graphs (`mope export BUNDLE --int8`). Every bundle answers with every text rule below, soft
and hard; latency is the CPU time of one request at a time on one thread, over requests of the median size: unlike
wall time it does not count what other programs take.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mope.data.load import read_examples
from mope.data.records import LengthData
from mope.data.split import split
from mope.files import whole, write_text
from mope.machine import machine
from mope.predictor.bundle import MoPE
from mope.predictor.config import TextConfig

RULES = {
    "8 tokens": TextConfig(6, 2, 0, 0),
    "16 + 8": TextConfig(12, 4, 4, 4),
    "32 + 16": TextConfig(24, 8, 8, 8),
    "48 + 24": TextConfig(32, 16, 12, 12),
    "72 + 36": TextConfig(),
}
TIMED = 60


def measure(bundle: MoPE, rows: LengthData, typical: LengthData, name: str) -> list[dict[str, Any]]:
    """MAE on `rows` and latency on `typical` of one bundle under every rule and routing."""
    found = []
    depth, trained = bundle.config.encoder.num_hidden_layers, bundle.config.text
    for rule, text in RULES.items():
        for routing in ("hard", "soft"):
            bundle.config = replace(bundle.config, text=text, routing=routing)
            errors = np.abs(np.array([f.tokens for f in bundle.predict(rows.requests)]) - rows.lengths)
            found.append({
                "bundle": name, "layers": depth, "text": rule, "as_trained": text == trained, "routing": routing,
                "validation_mae": float(errors.mean()), "p50_cpu_ms": latency(bundle, typical),
            })  # fmt: skip
    return found


def latency(bundle: MoPE, typical: LengthData) -> float:
    """Median milliseconds of `predict`, one request at a time."""
    taken = []
    for request in (typical.requests * 2)[: 2 * TIMED]:
        start = time.process_time()
        bundle.predict(request)
        taken.append(time.process_time() - start)
    return float(np.median(taken[TIMED // 2 :])) * 1e3


def floor(bundle: MoPE, rows: LengthData, typical: LengthData) -> dict[str, Any]:
    """The boosted trees on all features: no encoder at all."""
    floors = bundle.floors
    assert floors is not None
    error = np.abs(floors.predict(rows.requests)["context"] - rows.lengths).mean()
    start = time.process_time()
    for request in typical.requests[:TIMED]:
        floors.predict([request])
    spent = (time.process_time() - start) / min(TIMED, len(typical)) * 1e3
    return {
        "bundle": "context GBDT", "layers": 0, "text": "features", "as_trained": True, "routing": "-",
        "validation_mae": float(error), "p50_cpu_ms": spent,
    }  # fmt: skip


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The curve: one line a depth and routing, one point a text rule."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for layers, routing in dict.fromkeys((r["layers"], r["routing"]) for r in rows):
        line = [r for r in rows if (r["layers"], r["routing"]) == (layers, routing)]
        label = f"{layers} layers, {routing}" if layers else "context GBDT"
        axes.plot([r["p50_cpu_ms"] for r in line], [r["validation_mae"] for r in line], "o-", label=label)
    axes.set(xlabel="CPU ms a request (p50, int8, one thread)", ylabel="validation MAE, tokens", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    with whole(path) as partial:
        figure.savefig(partial, dpi=150, format="png")


def markdown(rows: list[dict[str, Any]]) -> str:
    """The points as a table."""
    lines = [
        "| layers | text (prompt + context tokens) | routing | validation MAE | p50 CPU ms |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        mark = " (as trained)" if r["as_trained"] and r["layers"] else ""
        lines.append(
            f"| {r['layers']} | {r['text']}{mark} | {r['routing']} | {r['validation_mae']:.1f} "
            f"| {r['p50_cpu_ms']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--bundle", action="append", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000, help="validation rows the error is measured on")
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    arguments = parser.parse_args()
    data = read_examples(arguments.data)
    data = data.take(np.random.default_rng(0).permutation(split(data)["validation"])[: arguments.rows])
    sizes = np.array([len(r.prompt) for r in data.requests])
    typical = data.take(np.argsort(np.abs(sizes - np.median(sizes)), kind="stable")[:TIMED])
    found: list[dict[str, Any]] = []
    for folder in arguments.bundle:
        bundle = MoPE.from_pretrained(folder, backend="onnx-int8")
        if not found:
            found.append(floor(bundle, data, typical))
        found += measure(bundle, data, typical, folder.name)
    document = {"machine": machine(), "rows": len(data), "points": found}
    write_text(arguments.output.with_suffix(".json"), json.dumps(document, indent=2) + "\n")
    write_text(arguments.output.with_suffix(".md"), markdown(found))
    draw(found, arguments.output.with_suffix(".png"))
    print(markdown(found))


if __name__ == "__main__":
    main()
