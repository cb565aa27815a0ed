"""Tiles by measurement: every candidate of every operation on the GPU at hand, the fastest of each kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from itertools import product

import torch

from mope.bench.kernels.ops import LINEARS, grouped
from mope.kernels import tiles
from mope.kernels.tiles import Tile

BOUNDS = (128, 512, 2048, 8192, 49152)  # tokens measured; a row of the table serves up to them
SHARES = (1 / 3, 1 / 3, 1 / 3)
OPS = {"linear": ("qkv", "up"), "out": ("out",), "down": ("down",)}
Timer = Callable[
    [str, int, Tile], float | None
]  # operation, tokens, tile -> microseconds; None: it does not run


def candidates(op: str, tokens: int, tma: bool) -> Iterator[Tile]:
    """Tiles worth a try: enough blocks for few tokens, wide ones for many."""
    wide = tokens > 512
    heights, widths = ((128,), (128, 256)) if wide else ((64,), (32, 64, 128))
    splits = (1, 2, 4) if op == "down" and not wide else (1,)
    for m, n, k, stages, split in product(heights, widths, (32, 64), (2, 3, 4), splits):
        tile = Tile(
            m, n, k, warps=8 if m * n > 8192 else 4, stages=stages, split=split, halves=2 if n == 256 else 1
        )
        yield tile
        if tma:
            yield replace(tile, tma=True)
        if tma and wide:
            yield replace(tile, tma=True, persist=True, halves=2)


def tuned(timer: Timer, tma: bool, why: str) -> dict[str, object]:
    """The rows of one architecture for tiles.json: of each operation the fastest tile up to each number of tokens.

    Neighbouring numbers of tokens that like the same tile share a row; attention is not tuned.
    """
    found: dict[str, object] = {"why": why}
    for op in OPS:
        rows: list[list[object]] = []
        for tokens in BOUNDS:
            times = {tile: timer(op, tokens, tile) for tile in candidates(op, tokens, tma)}
            ran = {tile: us for tile, us in times.items() if us is not None}
            best = min(ran, key=lambda tile: ran[tile])
            if rows and rows[-1][1] == shortened(best):
                rows[-1][0] = tokens
            else:
                rows.append([tokens, shortened(best)])
        rows[-1][0] = None
        found[op] = rows
    return found


def shortened(tile: Tile) -> dict[str, object]:
    """A tile as tiles.json has it: what is not the default."""
    defaults = {f.name: f.default for f in fields(Tile)}
    return {name: value for name, value in asdict(tile).items() if value != defaults[name]}


def on_gpu(op: str, tokens: int, tile: Tile) -> float | None:
    """Microseconds of the operation's maps in BERT-base with this tile; None where it does not fit or compile."""
    import triton

    total = 0.0
    try:
        for shape in (shape for shape in LINEARS if shape.name in OPS[op]):
            _, calls = grouped(shape, tokens, SHARES, torch.bfloat16)
            ours = calls["triton, with norm and epilogue"]
            with tiles.forced(tile):
                total += 1e3 * float(triton.testing.do_bench(ours, warmup=5, rep=25, return_mode="median"))
    except (RuntimeError, triton.runtime.errors.TritonError):
        return None
    return total


def merged(arch: str, rows: dict[str, object]) -> str:
    """The text of tiles.json with these rows for `arch`; what was not tuned stays."""
    table = {name: dict(known) for name, known in tiles.table().items()}
    table[arch] = {**table.get(arch, table["other"]), **rows}
    return json.dumps(table, indent=1) + "\n"
