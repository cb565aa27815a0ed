"""Four pictures of an evaluation, as PNG. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mope.evaluation.bootstrap import Interval
from mope.evaluation.report import Report
from mope.evaluation.rows import Rows
from mope.extras import require
from mope.types import BUCKETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DPI = 150
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
# Okabe and Ito's colours: told apart by colour-blind readers; the mixture is always blue
COLOURS = {"proxy": "#d55e00", "constant": "#7f7f7f", "surface GBDT": "#e69f00", "context GBDT": "#009e73"}
BLUE, INK = "#0072b2", "#333333"


def pictures(report: Report, rows: Rows) -> dict[str, bytes]:
    """Every picture that the report has data for: file name -> PNG. Raises `MissingExtra` without matplotlib."""
    require("plots", "drawing an evaluation")
    from matplotlib import rc_context

    painters: dict[str, Callable[[Figure], bool]] = {
        "predicted.png": lambda figure: predicted(figure, report, rows),
        "deciles.png": lambda figure: deciles(figure, report),
        "reliability.png": lambda figure: reliability(figure, report),
        "confusion.png": lambda figure: confusion(figure, report),
    }
    with rc_context(STYLE):  # type: ignore[arg-type]
        return {name: png for name, paint in painters.items() if (png := _png(paint))}


def predicted(figure: Figure, report: Report, rows: Rows) -> bool:
    """Predicted against true length, both on log axes, as a density of rows."""
    figure.set_size_inches(6.2, 5.4)
    axes = figure.add_subplot()
    truth, forecast = np.maximum(rows.truth, 1), np.maximum(rows.columns[report.default].tokens, 1)
    ends = (0.8, 1.3 * max(truth.max(), forecast.max()))
    decades = (np.log10(ends[0]), np.log10(ends[1]))
    density = axes.hexbin(
        truth, forecast, xscale="log", yscale="log", gridsize=48, bins="log", mincnt=1,
        cmap=_visible_blues(), linewidths=0.1, extent=(*decades, *decades),
    )  # fmt: skip
    axes.plot(ends, ends, color=INK, linewidth=1)
    bounds = np.clip((report.data.short_at_most, report.data.medium_at_most), *ends)
    cuts = [ends[0], *bounds, ends[1]]
    for bound in bounds:
        axes.axvline(bound, color=INK, linewidth=0.8, linestyle=":")
    for name, low, high in zip(BUCKETS, cuts[:-1], cuts[1:], strict=True):
        place = np.log(np.sqrt(low * high) / ends[0]) / np.log(ends[1] / ends[0])
        axes.text(place, 0.985, name, transform=axes.transAxes, ha="center", va="top", color=INK)
    axes.set(xlim=ends, ylim=ends, xlabel="true length, tokens", ylabel="predicted length (median), tokens")
    axes.set(title=f"{report.default}: predicted against true length", aspect="equal")
    bar = figure.colorbar(density, label="answers in a cell", shrink=0.85)
    _plain_ticks(axes.xaxis, axes.yaxis, bar.ax.yaxis)
    return True


def deciles(figure: Figure, report: Report) -> bool:
    """Mean absolute error of the default routing and the baselines, by tenth of the true length."""
    figure.set_size_inches(7.4, 4.4)
    axes = figure.add_subplot()
    places = np.arange(len(report.deciles), dtype=np.float64)
    shown = [name for name in (report.default, *COLOURS) if name in report.deciles[0].mae]
    for number, name in enumerate(shown):
        values = [_at_least_one(row.mae[name]) for row in report.deciles]
        shift = 0.12 * (number - (len(shown) - 1) / 2)
        _points(axes, places + shift, values, COLOURS.get(name, BLUE), name)
    labels = [f"{row.low:.0f}\nto {row.high:.0f}" for row in report.deciles]
    axes.set_xticks(places, labels, fontsize=8.5)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="true length, tokens (tenths of the answers)", ylabel="mean absolute error, tokens")
    axes.set(title="Error by true length, with 95 % intervals", yscale="log")
    _plain_ticks(axes.yaxis)
    axes.legend()
    return True


def reliability(figure: Figure, report: Report) -> bool:
    """Share of answers at or below each forecast quantile, against the level it was meant for."""
    if report.default not in report.reliability:
        return False
    figure.set_size_inches(5, 4.9)
    axes = figure.add_subplot()
    axes.plot((0, 1), (0, 1), color=INK, linewidth=1, label="exact")
    colours = {report.default: BLUE, "proxy": COLOURS["proxy"]}
    for name, colour in colours.items():
        found = report.reliability.get(name, ())
        _points(axes, np.asarray([row.level for row in found]), [r.observed for r in found], colour, name)
    ticks = np.arange(0, 1.01, 0.2)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks, aspect="equal")
    axes.set(xlabel="level of the forecast quantile", ylabel="share of answers at or below it")
    axes.set(title="Reliability of the quantiles, with 95 % intervals")
    axes.legend(loc="upper left")
    return True


def confusion(figure: Figure, report: Report) -> bool:
    """The router's confusion matrix: shares of each true bucket, and counts."""
    found = report.buckets.get(report.default)
    if found is None:
        return False
    figure.set_size_inches(4.8, 4.2)
    axes = figure.add_subplot()
    counts = np.asarray(found.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (true, said), part in np.ndenumerate(shares):
        text = f"{100 * part:.0f} %\n{counts[true, said]:,.0f}"
        axes.text(said, true, text, ha="center", va="center", color="white" if part > 0.55 else INK)
    axes.set_xticks(range(len(BUCKETS)), BUCKETS)
    axes.set_yticks(range(len(BUCKETS)), BUCKETS)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlabel="router said", ylabel="true bucket")
    axes.set(title=f"Router: {100 * found.accuracy.value:.1f} % right, macro F1 {found.macro_f1.value:.3f}")
    return True


def _points(axes: Axes, x: NDArray[np.float64], values: list[Interval], colour: str, label: str) -> None:
    """Values joined by a line, their intervals as bars; nothing where there are no values."""
    if not values:
        return
    middle = np.asarray([v.value for v in values])
    reach = np.asarray([(v.value - v.low, v.high - v.value) for v in values]).T
    # a percentile interval may lie beside its value, and one conversation has none
    reach = np.nan_to_num(np.maximum(reach, 0))
    axes.errorbar(
        x, middle, reach, color=colour, label=label, marker="o", markersize=4, linewidth=1.2, elinewidth=1
    )


def _at_least_one(interval: Interval) -> Interval:
    """One token is the least that a log axis shows."""
    return Interval(max(interval.value, 1.0), max(interval.low, 1.0), max(interval.high, 1.0))


def _plain_ticks(*log_axes: Axis) -> None:
    from matplotlib.ticker import FuncFormatter

    for axis in log_axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _visible_blues() -> Colormap:
    """Blues without its near-white end, so that a cell with one answer shows on white."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["Blues"](np.linspace(0.25, 1, 256)))


def _png(paint: Callable[[Figure], bool]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure, file = Figure(), BytesIO()
    FigureCanvasAgg(figure)  # draws without a display, whatever backend the user has
    if paint(figure):
        figure.savefig(file, dpi=DPI, format="png")
    return file.getvalue()
