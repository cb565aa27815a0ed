"""What every kernel that ships takes of a block on A100, H100 and MI300X, compiled without one: a JSON and a table.

python scripts/kernels_compiled.py docs/kernels-compiled
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

from mope.kernels import launch, offline
from mope.kernels.shipped import cases


def main(target: str) -> None:
    """Write TARGET.json, and print the table in Markdown."""
    found: dict[str, dict[str, dict[str, int | bool]]] = {}
    for arch in offline.TARGETS:
        found[arch] = {}
        for name, make in cases(arch).items():
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
