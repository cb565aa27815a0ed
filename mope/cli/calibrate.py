"""`mope calibrate`: a hundred logged answers of a served model into an overlay beside a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mope.cli.options import Mapping, Tokenizer

if TYPE_CHECKING:
    from mope.adapt.calibrate import Report
    from mope.data.records import LengthData


def calibrate(
    bundle: Annotated[str, typer.Argument(help="Bundle folder or Hub id; '' for the one that ships.")],
    log: Annotated[
        list[str],
        typer.Argument(metavar="LOG...", help="Rows with prompt and answer, as `mope train` takes them."),
    ],
    model: Annotated[
        str, typer.Option(help="The served model's name. Rows of the log that name another are left out.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The overlay's file; default: beside the bundle.")
    ] = None,
    mapping: Mapping = None,
    tokenizer: Tokenizer = None,
    limit: Annotated[int | None, typer.Option(help="Use the first rows only.")] = None,
    backend: Annotated[str, typer.Option(help="auto, onnx-int8, onnx or torch.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples behind the intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Learn a served model from as few as 50 of its answers, in seconds, without changing the bundle.

    Forecasts for requests of that model are then corrected by the file that is written. Answers that stopped at
    max_tokens (or at a cap of the log) count as at least that long. Where fits on four fifths of the log do not err
    less on the other fifth than the bundle as it is, nothing is written and the exit code is 1.
    """
    from mope.adapt.calibrate import calibrate as run
    from mope.cli.running import parse_mapping, print_json, print_rows
    from mope.data.load import read_examples
    from mope.predictor.bundle import MoPE
    from mope.predictor.overlays import NONE, overlay_path, write_overlay

    loaded = MoPE.from_pretrained(bundle or None, backend=backend, threads=threads, overlay=NONE)
    rows = read_examples(log, mapping=parse_mapping(mapping), tokenizer=tokenizer, limit=limit)
    print_rows(rows)
    overlay, report = run(loaded, _of(rows, model), model, seed)
    path = write_overlay(output or overlay_path(loaded.folder, model), overlay)
    if as_json:
        print_json({"overlay": str(path), "model": model, "reads_as": overlay.reads_as, **report.to_dict()})
    else:
        _print(report, overlay.reads_as)
    typer.echo(f"overlay in {path}", err=True)


def _of(rows: LengthData, model: str) -> LengthData:
    """The rows that `model` answered; a row that names none counts as its."""
    from mope.errors import DataError

    mine = [i for i, name in enumerate(rows.models) if name in ("", model)]
    if not mine:
        names = ", ".join(sorted(set(rows.models))[:10])
        raise DataError(
            f"a log without answers of {model!r}", f"rows of that model; it holds {names}", "correct --model"
        )
    if len(mine) < len(rows):
        typer.echo(f"{len(rows) - len(mine):,} rows of other models left out", err=True)
    return rows.take(mine)


def _print(report: Report, reads_as: str) -> None:
    from rich.table import Table

    from mope.cli.running import table_console

    table = Table("on held-out parts of the log", box=None, header_style="bold")
    for name in ("bundle as it is", "with the overlay"):
        table.add_column(name, justify="right", no_wrap=True)
    shown = {
        "mae": "MAE, tokens",
        "log_mae": "log-MAE",
        "pinball": "pinball loss, tokens",
        "coverage": "coverage",
    }
    for key, name in shown.items():
        table.add_row(name, *(_cell(side[key].value, key) for side in (report.before, report.after)))
    table_console(100).print(table)
    d = report.difference
    typer.echo(
        f"MAE {d.value:+.1f} [{d.low:+.1f}, {d.high:+.1f}] tokens over {report.conversations:,} prompts and "
        f"{report.answers:,} answers, {report.cut:,} of them cut at a limit"
    )
    if reads_as:
        typer.echo(f"starts from what the bundle knows of {reads_as}")


def _cell(value: float, key: str) -> str:
    return f"{value:.1%}" if key == "coverage" else f"{value:.3f}" if key == "log_mae" else f"{value:.1f}"
