"""A fitted hardware profile beside what it was fitted to: predicted over measured time, one panel a part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mope.extras import require
from mope.mapper.build import Measured, predicted
from mope.mapper.points import DecodePoints, LayerPoints, LinkPoints, PrefillPoints
from mope.mapper.profile import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    LayerPoints: "one layer, attention left out",
    DecodePoints: "decode attention of one layer",
    PrefillPoints: "prefill attention of one layer",
    LinkPoints: "all-reduce",
}
MOST_DOTS = 3000


def draw_fit(profile: Profile, measured: Sequence[Measured], path: str | Path) -> None:
    """Write a PNG: for each table, predicted against measured time on log axes, with the 10 % lines."""
    require("plots", "drawing a fit")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(measured), 4.2), layout="constrained")
    axes = figure.subplots(1, len(measured), squeeze=False)[0]
    for axis, item in zip(axes, measured, strict=True):
        _panel(axis, profile, item)
    figure.suptitle(profile.name)
    figure.savefig(path, dpi=75, format="png", metadata={"Software": ""})


def _panel(axis: Axes, profile: Profile, item: Measured) -> None:
    guess, seen = predicted(profile, item.points)
    step = max(1, seen.size // MOST_DOTS)
    error = np.median(np.abs(guess / seen - 1.0))
    axis.loglog(seen[::step] * 1e3, guess[::step] * 1e3, ".", markersize=3, alpha=0.5, color="tab:blue")
    ends = np.array([seen.min(), seen.max()]) * 1e3
    for factor, style in ((1.0, "-"), (0.9, ":"), (1.1, ":")):
        axis.plot(ends, ends * factor, style, color="black", linewidth=0.8)
    axis.set_title(
        f"{TITLES.get(type(item.points), 'step of an engine')}\nmedian error {error:.1%}", fontsize=9
    )
    axis.set_xlabel("measured, ms")
    axis.set_ylabel("fitted, ms")
