"""The overlays that lie beside a bundle, which of them answers for which request, and what ties them to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mope.errors import BundleError
from mope.files import write_text
from mope.predictor import layout
from mope.predictor.config import BundleConfig
from mope.predictor.inputs import Inputs
from mope.predictor.overlay import Overlay
from mope.types import Request

FOLDER = "overlays"
NONE = "none"
MAX_BYTES = 1 << 20
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Overlays:
    """Overlays by served model; `anyone` answers for requests that name no model."""

    by_model: dict[str, Overlay] = field(default_factory=dict)
    anyone: Overlay | None = None

    def places(self, requests: Sequence[Request]) -> list[tuple[Overlay | None, Rows]]:
        """Each overlay with the rows it answers, None with the rest; the parts that hold no row are left out."""
        if not self.by_model:
            return [(None, np.arange(len(requests)))] if requests else []
        found: dict[str, list[int]] = {}
        for row, request in enumerate(requests):
            overlay = self.by_model.get(request.model) if request.model else self.anyone
            found.setdefault(overlay.model if overlay else "", []).append(row)
        return [(self.by_model.get(name), np.array(rows, np.int64)) for name, rows in found.items()]

    def read_as(self, inputs: Inputs, requests: Sequence[Request], models: Sequence[str]) -> Inputs:
        """`inputs` with each overlay's rows asked about the known model it reads them as."""
        model = inputs.model
        for overlay, rows in self.places(requests):
            if overlay is not None and overlay.reads_as:
                model = model.copy() if model is inputs.model else model
                model[rows] = 1 + list(models).index(overlay.reads_as)
        return inputs if model is inputs.model else replace(inputs, model=model)


def identity(folder: Path, config: BundleConfig) -> str:
    """What an overlay belongs to: the bundle's config, its cheap router and its calibration.

    Graphs and weights of other precision leave it as it is: they say the same but for rounding.
    """
    plain = asdict(replace(config, files={}, mope_version=""))
    parts = [
        json.dumps(plain, sort_keys=True),
        config.files.get(layout.ROUTER) or layout.sha256(layout.inside(folder, layout.ROUTER)),
        layout.read_text(folder, layout.CALIBRATION),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def overlay_path(folder: Path, model: str) -> Path:
    """Where the overlay of a served model lies beside a bundle."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip(".-")[:60]
    return folder / FOLDER / f"{plain}-{hashlib.sha256(model.encode()).hexdigest()[:8]}.json"


def load_overlays(folder: Path, config: BundleConfig, asked: str | Path | None) -> Overlays:
    """The overlays beside the bundle; with `asked` that file alone, which then also answers for requests without a
    model; with "none" none. Raises `BundleError` for a file that is damaged or belongs to another bundle.
    """
    if asked == NONE:
        return Overlays()
    if asked is not None:
        one = read_overlay(Path(asked), folder, config)
        return Overlays({one.model: one}, one)
    there = sorted((folder / FOLDER).glob("*.json")) if (folder / FOLDER).is_dir() else []
    found = [read_overlay(path, folder, config) for path in there if not path.name.startswith(".")]
    return Overlays({overlay.model: overlay for overlay in found})


def read_overlay(path: Path, folder: Path, config: BundleConfig) -> Overlay:
    """An overlay's file, checked against the bundle in `folder`."""
    overlay = Overlay.from_json(_text(path), str(path))
    if overlay.bundle != identity(folder, config):
        raise BundleError(
            f"{path}: an overlay of another bundle", "one made for this bundle", "run `mope calibrate` again"
        )
    if overlay.reads_as and overlay.reads_as not in config.models:
        raise BundleError(f"{path}: reads as {overlay.reads_as!r}", "a served model that the bundle knows")
    return overlay


def write_overlay(path: Path, overlay: Overlay) -> Path:
    """Write the file whole or not at all."""
    write_text(path, overlay.to_json())
    return path


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BundleError(f"{path} of {path.stat().st_size:,} bytes", f"at most {MAX_BYTES:,}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{path} is not UTF-8 text", "a file of `mope calibrate`") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})", "a file of `mope calibrate`") from None
