"""A run on disk: the log as it grows, and now and then all of the simulation, so that a killed run goes on.

Only classes of ours, numpy's and plain ones are unpickled: a checkpoint from elsewhere cannot run code.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import IO, Any

from mope.errors import BadInput
from mope.sim.engine import Simulation

SAFE = ("mope.sim.", "mope.mapper.", "mope.types", "numpy", "collections")
PLAIN = {"set", "frozenset", "dict", "list", "tuple", "complex", "bytearray", "object", "getattr"}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(SAFE) or (module == "builtins" and name in PLAIN):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")


def save(sim: Simulation, path: Path, run: str) -> None:
    """Write a checkpoint of `run`, whole or not at all; the log is brought to the disk first."""
    written = sim.log.flush()
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        pickle.dump({"run": run, "log_bytes": written, "count": sim.log.count, "sim": sim}, file, protocol=5)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path, run: str) -> dict[str, Any] | None:
    """What `save` wrote for the same `run`; None where none is. Raises `BadInput` on a file not ours."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            found = _read(file)
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        ImportError,
        TypeError,
        KeyError,
        IndexError,
    ) as error:
        raise BadInput(
            f"{path}: {error}", "a checkpoint of this version", "delete it to start again"
        ) from None
    return found if found.get("run") == run else None


def _read(file: IO[bytes]) -> dict[str, Any]:
    found = _Reader(file).load()
    if not isinstance(found, dict):
        raise pickle.UnpicklingError("not a checkpoint")
    return found
