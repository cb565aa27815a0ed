"""A `Report` as tables of text and as Markdown; who prints them decides how they look."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mope.evaluation.bootstrap import Interval
from mope.evaluation.report import ORACLE_NOTE, Report
from mope.types import BUCKETS


@dataclass(frozen=True, slots=True)
class Table:
    """Text in cells, for whoever prints it; `note` stands under the table."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __rich__(self) -> object:
        """How rich prints it: the bracketed interval below its value, so that wide tables fit."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = RichTable(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
        for place, name in enumerate(self.header):
            shown.add_column(name, justify="right" if place else "left", no_wrap=not place)
        for row in self.rows:
            shown.add_row(*(Text(text.replace(" [", "\n[")) for text in row))
        note = (Text(self.note, style="italic"),) if self.note else ()
        return Group(Text(self.title, style="bold"), shown, *note, "")


def report_tables(report: Report) -> list[Table]:
    """Every table of the report that has rows, in reading order."""
    oracle = next((note for note in report.notes if note == ORACLE_NOTE), "")
    found = [
        _columns("Error, in tokens", report, ERRORS, oracle),
        _columns("Order, quantiles and the 80 % interval", report, SHAPES, oracle),
        _comparisons(report),
        _buckets(report),
        _confusion(report),
        _coverage(report),
        *_floor(report),
        _slices(report),
    ]
    return [table for table in found if table.rows]


def markdown(report: Report, pictures: Sequence[str] = ()) -> str:
    """The report as a Markdown document that shows `pictures` (file names beside it)."""
    lines = ["# Evaluation", "", summary(report), ""]
    for table in report_tables(report):
        lines += [f"## {table.title}", "", _line(table.header), _line(("---",) * len(table.header))]
        lines += [_line(row) for row in table.rows]
        lines += ["", table.note, ""] if table.note else [""]
    lines += [f"- {note}" for note in report.notes]
    lines += [f"\n![{name.removesuffix('.png')}]({name})" for name in pictures]
    return "\n".join(lines) + "\n"


def summary(report: Report) -> str:
    """One paragraph: on what, and how the intervals were made."""
    data = report.data
    return (
        f"{data.examples} prompts with {data.samples} answers in {data.groups} conversations "
        f"(part: {data.part}); lengths: mean {data.mean_tokens:.0f}, median {data.median_tokens:.0f}, "
        f"99th percentile {data.p99_tokens:.0f} tokens. Brackets are 95 % intervals over conversations "
        f"({report.n_boot} resamples, seed {report.seed}). Default routing: {report.default}."
    )


Format = Callable[[float], str]


def tokens(value: float) -> str:
    """Tokens to one decimal."""
    return f"{value:.1f}"


def share(value: float) -> str:
    """A share of 1 as a percentage."""
    return f"{100 * value:.1f} %"


def plain(value: float) -> str:
    """A number without a unit, three decimals."""
    return f"{value:.3f}"


ERRORS: dict[str, tuple[str, Format]] = {
    "mae": ("MAE", tokens),
    "median_ae": ("median AE", tokens),
    "acc_50": ("Acc-50", share),
    "acc_100": ("Acc-100", share),
    "log_mae": ("log-MAE", plain),
}
SHAPES: dict[str, tuple[str, Format]] = {
    "tau_b": ("Kendall tau-b", plain),
    "order_accuracy": ("order accuracy", share),
    "pinball": ("pinball loss", tokens),
    "coverage": ("coverage", share),
    "width": ("mean width", tokens),
}


def cell(interval: Interval | None, style: Format) -> str:
    """`value [low, high]`, or a dash where there is no value."""
    if interval is None or math.isnan(interval.value):
        return "-"
    if math.isnan(interval.low):
        return style(interval.value)
    low, high = (style(end).removesuffix(" %") for end in (interval.low, interval.high))
    return f"{style(interval.value)} [{low}, {high}]"


def _columns(title: str, report: Report, metrics: dict[str, tuple[str, Format]], note: str) -> Table:
    header = ("", *(name for name, _ in metrics.values()))
    rows = tuple(
        (column.name, *(cell(column.metrics.get(key), style) for key, (_, style) in metrics.items()))
        for column in report.columns
    )
    return Table(title, header, rows, note)


def _comparisons(report: Report) -> Table:
    header = ("against", "difference in MAE", "p", "p (Holm)")
    rows = tuple(
        (c.baseline, cell(Interval(c.difference, c.low, c.high), tokens), plain(c.p), plain(c.p_holm))
        for c in report.comparisons
    )
    note = "below 0 the mixture is better; paired bootstrap over conversations"
    return Table(f"{report.default} against the others", header, rows, note)


def _buckets(report: Report) -> Table:
    rows = tuple(
        (name, cell(found.accuracy, share), cell(found.macro_f1, plain))
        for name, found in report.buckets.items()
    )
    return Table("Buckets", ("", "bucket accuracy", "macro F1"), rows)


def _confusion(report: Report) -> Table:
    found = report.buckets.get(report.default)
    lines = found.confusion if found else []
    rows = tuple(
        (f"true {BUCKETS[i]}", *(f"{weight:.0f}" for weight in line)) for i, line in enumerate(lines)
    )
    return Table("Router: true bucket by predicted bucket", ("", *BUCKETS), rows)


def _coverage(report: Report) -> Table:
    header = ("router said", "answers", "coverage", "mean width")
    rows = tuple(
        (row.bucket, str(row.samples), cell(row.coverage, share), cell(row.width, tokens))
        for row in report.coverage
    )
    return Table(f"80 % interval of {report.default} by predicted bucket", header, rows)


def _floor(report: Report) -> list[Table]:
    if report.floor is None:
        return []
    floor = report.floor
    rows = tuple(
        (name, cell(mae, tokens), cell(floor.skill.get(name), plain)) for name, mae in floor.mae.items()
    )
    note = (
        f"noise floor {cell(floor.noise_floor, tokens)}: MAE of the median of the same prompt's other "
        "answers; skill = (constant - model) / (constant - floor)"
    )
    return [Table(f"Prompts with several answers ({floor.prompts})", ("", "MAE", "skill"), rows, note)]


def _slices(report: Report) -> Table:
    names = [c.name for c in report.columns if c.name == report.default or not c.name.startswith("MoPE")]
    rows = tuple(
        (
            row.value or "(none)",
            str(row.samples),
            cell(row.coverage.get(report.default), share),
            *(cell(row.mae[name], tokens) for name in names),
        )
        for row in report.slices
    )
    return Table(f"MAE by {report.by}, in tokens", (f"{report.by}", "answers", "coverage", *names), rows)


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
