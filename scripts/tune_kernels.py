"""Tune the grouped linear maps on the GPU at hand: about ten minutes, most of it compilation.

python scripts/tune_kernels.py mope/kernels/tiles.json
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch

from mope.bench.kernels import tune
from mope.kernels import launch


def main(target: str) -> None:
    """Measure, and write the whole table with this card's rows in it."""
    device = torch.device("cuda")
    arch, name = launch.architecture(device), torch.cuda.get_device_name(0)

    def timer(op: str, tokens: int, tile: tune.Tile) -> float | None:
        us = tune.on_gpu(op, tokens, tile)
        print(
            f"{op:8} {tokens:6} tokens  {tile.label:60} {us if us is None else round(us, 1)} us", flush=True
        )
        return us

    why = f"measured on {name} with Triton {version('triton')}, BF16, BERT-base, three even experts"
    tma = arch.startswith("sm_") and torch.cuda.get_device_capability() >= (9, 0)
    text = tune.merged(arch, tune.tuned(timer, tma, why))
    Path(target).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
