"""Fit `mope/sim/scenarios/llama-2-7b@a10g-slora.json`: S-LoRA's kernels on an A10G, as VTC's study ran them.

    python scripts/slora_profile.py

Points: `fair_bench/cost_profile.json` of Ying1123/VTC-artifact (Apache-2.0): prompt and output tokens, the batch
that fills the pool, seconds of prefill and of all decode steps, each per request. Batches above 128 are left out:
the next tile of a matrix product starts there, and VTC's suites never get to it; with one output token the clock of
the profile is too coarse. A prefill reads the weights once, as a decode step does: it gets the same constant.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mope.mapper.profile import Profile
from mope.mapper.steps import Direct

MOST_BATCH = 128
POINTS = """
8 64 138 0.00214179 0.03027546 | 8 128 73 0.00226679 0.07749405 | 8 196 49 0.00311951 0.14817801
8 256 37 0.00297216 0.25211187 | 64 64 78 0.01368870 0.03831647 | 64 128 52 0.01395938 0.09524755
64 196 38 0.01446203 0.19397690 | 64 256 31 0.01486113 0.30026343 | 256 64 31 0.05474759 0.08188322
256 128 26 0.05427648 0.19023098 | 256 196 22 0.05476991 0.33721167 | 256 256 19 0.05584251 0.50111907
512 64 17 0.11052472 0.14756105 | 512 128 15 0.10978666 0.33300082 | 512 196 14 0.11074526 0.54488357
512 256 13 0.10909275 0.76035540
"""


def main() -> None:
    rows = np.array(
        [[float(x) for x in row.split()] for row in POINTS.replace("\n", "|").split("|") if row.strip()]
    )
    rows = rows[rows[:, 2] <= MOST_BATCH]
    prompt, output, batch, prefill_s, decode_s = rows.T
    context = batch * (prompt + (output + 1) / 2)
    design = np.stack([np.ones(len(rows)), batch, context], axis=1)
    steps_s = decode_s * batch / output
    line = np.linalg.lstsq(design, steps_s, rcond=None)[0]
    tokens = prompt * batch
    per_token = float(tokens @ (prefill_s * batch - line[0]) / (tokens @ tokens))
    law = Direct(*(round(float(value), 9) for value in (*line, line[0], per_token)))
    residual = 1e3 * float(np.abs(design @ line - steps_s).max())
    base = Profile.load("llama-2-7b@a10g")
    profile = replace(
        base,
        name="llama-2-7b@a10g-slora",
        law=law,
        origin={
            "steps": "scripts/slora_profile.py: fair_bench/cost_profile.json of Ying1123/VTC-artifact (Apache-2.0)"
        },
        error={"steps": {"largest residual of a decode step, ms": round(residual, 2), "points": len(rows)}},
    )
    path = Path("mope/sim/scenarios/llama-2-7b@a10g-slora.json")
    profile.save(path)
    print(law, f"largest residual {residual:.2f} ms of {len(rows)} points")


if __name__ == "__main__":
    main()
