"""Names of a bundle's files, and their safe reading: nothing is unpickled, nothing outside the folder is opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mope.errors import BundleError
from mope.files import whole
from mope.types import BUCKETS

CONFIG = "config.json"
CALIBRATION = "calibration.json"
TOKENIZER = "tokenizer.json"
FACTS = "facts.json"
CARD = "README.md"
ROUTER = "router.safetensors"
FLOORS = "floors.safetensors"
TRUNK, PROXY, ENCODER_ROUTER = "trunk", "proxy", "router"
NETWORKS = (TRUNK, *BUCKETS, PROXY, ENCODER_ROUTER)
ROUTED = "routed"  # the graph that holds trunk, router and experts in one file
KINDS = ("fp32", "fp16", "int8")
MAX_BYTES = 4 << 30
MAX_TEXT, MAX_SMALL = 64 << 20, 256 << 20  # texts; the cheap router and the floors


def weights_file(network: str) -> str:
    """Path of a network's weights inside the bundle."""
    if network in BUCKETS:
        return f"experts/{network}.safetensors"
    return "router/encoder.safetensors" if network == ENCODER_ROUTER else f"{network}.safetensors"


def onnx_file(network: str, kind: str) -> str:
    """Path of a network's graph inside the bundle; `kind` is one of `KINDS`."""
    return f"onnx/{network}.onnx" if kind == "fp32" else f"onnx/{kind}/{network}.onnx"


def inside(folder: Path, name: str, most: int = MAX_BYTES) -> Path:
    """`folder / name`, refused where it is no plain file below the folder (absolute, `..`, link out of it), or has
    more than `most` bytes: before any of it is read."""
    parts = Path(name).parts
    path = folder.joinpath(*parts)
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise BundleError(f"a bundle file named {name!r}", "a path inside the bundle")
    if not os.path.isfile(path):  # says no where `Path.is_file` raises, as on a name that is too long
        raise BundleError(f"a bundle without {name}", "a whole bundle folder", "train or fetch it again")
    if not _homes(folder) & set(path.resolve().parents):
        raise BundleError(f"{name} leads outside the bundle", "plain files inside the folder")
    if path.stat().st_size > most:
        raise BundleError(f"{name} of {path.stat().st_size:,} bytes", f"at most {most:,}")
    return path


def _homes(folder: Path) -> set[Path]:
    """Where files may lie: the folder; the Hub's cache keeps a snapshot as links to the blobs beside it."""
    root = folder.resolve()
    return {root, root.parent.parent / "blobs"} if root.parent.name == "snapshots" else {root}


def read_text(folder: Path, name: str) -> str:
    """A small text file of the bundle."""
    try:
        return inside(folder, name, MAX_TEXT).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BundleError(
            f"{name} is not UTF-8 text", "the file mope wrote", "fetch the bundle again"
        ) from None
    except OSError as error:
        raise _unreadable(name, error) from None


def read_arrays(folder: Path, name: str, most: int = MAX_SMALL) -> dict[str, NDArray[np.generic]]:
    """The arrays of a safetensors file of at most `most` bytes."""
    try:
        return dict(load_file(inside(folder, name, most)))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{name} cannot be read ({error})", "a whole safetensors file", "fetch the bundle again"
        ) from None
    except OSError as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: OSError) -> BundleError:
    return BundleError(
        f"{name} cannot be read ({error.strerror})", "a readable file", "check its permissions"
    )


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write a safetensors file whole or not at all."""
    with whole(path) as partial:
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, partial)


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _sha256(path)
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no file_digest
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Compare the files that a config lists with their hashes; raises `BundleError` for the first that differs."""
    for name, digest in files.items():
        try:
            found = sha256(inside(folder, name))
        except OSError as error:
            raise _unreadable(name, error) from None
        if found != digest:
            raise BundleError(
                f"{name} was changed or cut short (its hash differs)",
                "the file mope wrote",
                "fetch the bundle again",
            )
