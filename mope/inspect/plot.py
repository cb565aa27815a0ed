"""Lengths by source and the learning curve, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mope.errors import ConfigError
from mope.extras import require
from mope.files import whole
from mope.inspect.curve import Curve
from mope.inspect.run import Inspection
from mope.inspect.tally import percentiles

FORMATS = (".png", ".svg", ".pdf")
MOST_LINES = 8


def check(path: Path) -> None:
    """Raise `ConfigError` for a name that is no picture's, `MissingExtra` without matplotlib."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--plot {path}", f"a name that ends in {', '.join(FORMATS)}")
    require("plots", "--plot")


def draw(found: Inspection, path: Path) -> None:
    """Write the picture, whole or not at all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    _lengths(left, found)
    if isinstance(found.curve, Curve):
        _curve(right, found.curve)
    else:
        right.set_axis_off()
    figure.tight_layout()
    with whole(path) as partial:
        figure.savefig(partial, dpi=150, format=path.suffix.lower()[1:])


def _lengths(axes: Any, found: Inspection) -> None:
    levels = np.linspace(0, 100, 201)
    groups = sorted(found.tally.merged("source").items(), key=lambda item: -item[1].answers)
    for (source, _), group in groups[:MOST_LINES]:
        axes.plot(np.maximum(percentiles(group.lengths, levels.tolist()), 0.5), levels, label=source or "all")
    axes.set(xscale="log", xlabel="tokens", ylabel="answers at most as long, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _curve(axes: Any, curve: Curve) -> None:
    values = [told["value"] for told in curve.errors]
    reach = np.array([[told["value"] - told["low"], told["high"] - told["value"]] for told in curve.errors]).T
    axes.errorbar(curve.sizes, values, yerr=np.maximum(reach, 0.0), fmt="o", label="measured")
    at = np.geomspace(curve.sizes[0], max(curve.ahead), 100)
    law = curve.law
    axes.plot(at, law["floor"] + law["scale"] * at ** -law["power"], label="power law")
    sizes = sorted(curve.ahead)
    ends = [[curve.ahead[size][end] for size in sizes] for end in ("low", "high")]
    axes.fill_between(sizes, *ends, alpha=0.2, label="95 % interval")
    axes.set(xscale="log", xlabel="training examples", ylabel="MAE of boosted trees, tokens")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
