"""What every kernel that ships takes of a block on A100, H100 and MI300X, compiled without one: a JSON and a table.

python scripts/kernels_compiled.py docs/kernels-compiled
"""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

from mope.kernels import launch, offline
from mope.kernels.shipped import cases, residual, up
from mope.kernels.tiles import Tile

# Larger tiles that were tried and do not ship.
REFUSED = {
    "sm_80": [Tile(128, 256, 32, 8, 4), Tile(128, 128, 32, 4, 4)],
    "sm_90": [Tile(128, 256, 64, 8, 3), Tile(128, 256, 64, 8, 3, persist=True, tma=True)],
    "gfx942": [Tile(256, 128, 32, 8, 2)],
}
BOTH = {"linear": partial(up, width=768), "down": partial(residual, rows=False)}


def main(target: str) -> None:
    """Write TARGET.json, and print the table in Markdown."""
    found: dict[str, dict[str, dict[str, int | bool]]] = {}
    for arch in offline.TARGETS:
        found[arch] = {}
        refused = {
            f"refused: {op} {tile.label}": partial(make, tile)
            for tile in REFUSED[arch]
            for op, make in BOTH.items()
        }
        for name, make in (cases(arch) | refused).items():
            with launch.recording(arch) as record:
                make()
            (only,) = record.launches
            taken = offline.resources(offline.compile_launch(only, arch)).to_dict()
            found[arch][name] = taken
            row = (arch, name, taken["registers"], taken["spills"], f"{taken['shared']:,}")
            print("|", " | ".join(map(str, row)), "|", flush=True)
    versions = {"triton": version("triton"), "torch": version("torch")}
    text = json.dumps(
        {"versions": versions, "shared_limit": offline.SHARED_LIMIT, "kernels": found}, indent=1
    )
    Path(f"{target}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
