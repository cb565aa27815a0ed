"""The first few held-out models of `adapt_models.py`, trained fully on all of their data, from the same bundle.

    python scripts/adapt_full.py PROMPTS LENGTHS --work DIR --models 10 --output docs/adapt/full

As `mope train --from DIR/bundle-0` would, on every prompt of the model but the fifth that fold 0 keeps for its test.
Beside them the error of that bundle, calibrated on 500.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from adapt_models import Said, held_out, judge, tested, world

from mope.data.load import read_examples
from mope.data.records import LengthData
from mope.machine import machine
from mope.predictor.bundle import MoPE
from mope.training.recipe import load_recipe
from mope.training.train import train

SETTINGS = (
    "threads=1", "sampling_dropout=0", "epochs.proxy=6", "epochs.proxy_tower=4", "epochs.router=4",
    "epochs.experts=4", "epochs.joint=0", "min_model_rows=5",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts")
    parser.add_argument("lengths")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    data = read_examples([asked.prompts, asked.lengths])
    groups, origin = sorted(set(data.groups)), asked.work / "bundle-0"
    bundle = MoPE.from_pretrained(origin, backend="torch", overlay="none")
    here = world(data, Said.of(bundle, data, groups, asked.work / "said-0.npz"), groups, 0)
    found = []
    for name in held_out(set(data.models))[: asked.models]:
        mine = [e for e in data.examples if e.request.model == name]
        log = LengthData([e for e in mine if not tested(e.group, 0)])
        test = LengthData([e for e in mine if tested(e.group, 0)])
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            recipe = load_recipe("minilm", settings=SETTINGS)
            trained = train(recipe, log, Path(folder) / "bundle", origin=origin)
            columns = MoPE.from_pretrained(trained, backend="torch").columns(test.requests)
        errors = {key: float(np.abs(column.tokens - test.lengths).mean()) for key, column in columns.items()}
        judged = judge(bundle, here, here.names.index(name), [500])
        errors["calibrated 500"] = float(np.nanmean(judged["calibrated 500"]))
        found.append({"model": name, "prompts": len(log), "seconds": time.perf_counter() - began, **errors})
        print(found[-1], flush=True)
        plain = {**machine(), "settings": SETTINGS, "models": found}
        asked.output.with_suffix(".json").write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
