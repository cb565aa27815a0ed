"""What commands share: mappings, progress, tables, JSON. Logs and progress go to stderr, results to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mope.errors import ConfigError
from mope.types import LengthForecast, Request

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress

    from mope.data.records import LengthData
    from mope.evaluation.report import Report
    from mope.mapper.prices import Price

PIPE_WIDTH = 140
SHOWN = 60  # characters of a prompt in a table


def parse_mapping(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """`prompt=question` or `prompt=question,length=tokens`, repeated, as a mapping."""
    if not pairs:
        return None
    items = [item.strip() for pair in pairs for item in pair.split(",") if item.strip()]
    wrong = [item for item in items if "=" not in item]
    if wrong:
        raise ConfigError(f"--map {wrong[0]!r}", "FIELD=COLUMN")
    return {field.strip(): column.strip() for field, column in (item.split("=", 1) for item in items)}


def progress_bar() -> Progress:
    """A progress display on stderr with the stage, its last validation and the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=Console(stderr=True),
    )  # fmt: skip


def print_rows(data: LengthData) -> None:
    """How many rows came and how many were refused, by reason."""
    from rich.console import Console

    console = Console(stderr=True)
    console.print(f"{len(data):,} examples, {sum(data.refused.values()):,} rows refused")
    for reason, count in data.refused.most_common():
        console.print(f"  {count:,} x {reason}", markup=False)
    for note in data.notes:
        console.print(f"  note: {note}", markup=False)


def asked_price(model: str | None, price_list: Path | None) -> Price | None:
    """The price of a hosted model by name, from a list of one's own before the one that ships."""
    from mope.mapper.prices import PriceList

    return None if model is None else PriceList.load(price_list).price(model)


def table_console(width: int = PIPE_WIDTH) -> Console:
    """Where tables go. Piped output has no width of its own, and folded tables cannot be read."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def print_json(value: Any) -> None:
    """The one JSON document of a command."""
    print(json.dumps(value, indent=2, default=str, allow_nan=False))


def print_files(files: Mapping[str, int]) -> None:
    """Files and their sizes."""
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "bytes", box=None)
    for name, size in (*files.items(), ("all", sum(files.values()))):
        table.add_row(name, f"{size:,}")
    Console().print(table)


def print_report(report: Report) -> None:
    """An evaluation as tables."""
    from mope.evaluation.tables import report_tables

    console = table_console()
    for item in report_tables(report):
        console.print(item)


def forecast_table(requests: Sequence[Request], forecasts: Sequence[LengthForecast]) -> None:
    """Forecasts for people."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    table.add_column("prompt", max_width=SHOWN, no_wrap=True)
    for name in ("tokens", "80 % interval", "bucket", "router"):
        table.add_column(name, justify="right", no_wrap=True)
    for request, forecast in zip(requests, forecasts, strict=True):
        table.add_row(
            Text(shown(request.prompt)),
            f"{forecast.tokens:.0f}",
            f"{forecast.low:.0f} to {forecast.high:.0f}",
            forecast.bucket,
            " / ".join(f"{p:.2f}" for p in forecast.probabilities),
        )
    table_console().print(table)


def shown(prompt: str) -> str:
    """The start of a prompt on one line, without what a terminal would obey or could not print."""
    line = " ".join(prompt[: 4 * SHOWN].split())
    return "".join(char if char.isprintable() else "\ufffd" for char in line)
