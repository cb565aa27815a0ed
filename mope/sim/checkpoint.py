"""A run on disk: the log as it grows, and now and then all of the simulation, so that a killed run goes on.

A checkpoint from elsewhere cannot run code: of our modules only classes that they define themselves are built, of
others only what is listed here, and the one bound object whose methods a simulation holds is its oracle.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import IO, Any

from mope.errors import BadInput
from mope.files import whole
from mope.sim import guesses, oracle
from mope.sim.engine import Simulation

OURS = ("mope.sim.", "mope.mapper.", "mope.types")
METHODS = ("forecast", "util")  # of an oracle
DRAWS = ("_laplace", "_even")  # functions of `mope.sim.guesses`
OTHERS = {
    ("collections", "OrderedDict"),
    ("collections", "deque"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),  # NumPy 1
    ("numpy.random._pcg64", "PCG64"),
    ("numpy.random._pickle", "__bit_generator_ctor"),
    ("numpy.random._pickle", "__generator_ctor"),
    ("numpy.random.bit_generator", "SeedSequence"),
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _method
        if (module, name) in OTHERS:
            return super().find_class(module, name)
        # A dotted name would lead on from our module to what it imports.
        if module.startswith(OURS) and "." not in name:
            found = super().find_class(module, name)
            drawn = module == guesses.__name__ and name in DRAWS
            if (isinstance(found, type) and found.__module__ == module) or drawn:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")


def _method(owner: object, name: str) -> Any:
    """In place of `getattr`, by which bound methods are pickled."""
    if not isinstance(owner, oracle.Oracle) or name not in METHODS:
        raise pickle.UnpicklingError(f"{name} of a {type(owner).__name__} has no place in a checkpoint")
    return getattr(owner, name)


def save(sim: Simulation, path: Path, run: str) -> None:
    """Write a checkpoint of `run`, whole or not at all; the log is brought to the disk first."""
    written = sim.log.flush()
    with whole(path) as partial, partial.open("wb") as file:
        pickle.dump({"run": run, "log_bytes": written, "count": sim.log.count, "sim": sim}, file, protocol=5)
        file.flush()
        os.fsync(file.fileno())


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
