"""`mope evaluate`: how good a bundle is on rows with known lengths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mope.cli.options import Mapping, Tokenizer

if TYPE_CHECKING:
    from mope.evaluation.report import Report
    from mope.evaluation.rows import Rows


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Bundle folder or Hub id.")],
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA...", help="Files, folders or Hub ids of (prompt, answer) rows."),
    ],
    by: Annotated[str | None, typer.Option(help="A table by source, model or (true) bucket.")] = None,
    part: Annotated[
        str,
        typer.Option(
            help="test, validation, calibration, train, or all (data the bundle was not trained on)."
        ),
    ] = "test",
    mapping: Mapping = None,
    tokenizer: Tokenizer = None,
    limit: Annotated[int | None, typer.Option(help="Use the first rows only.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for report.json, report.md and the pictures."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples behind every interval.")] = 0,
    overlay: Annotated[
        str | None,
        typer.Option(help="A file of `mope calibrate` instead of those beside the bundle; none for none."),
    ] = None,
    facts: Annotated[
        bool, typer.Option("--facts", help="Also write the report into the bundle's facts.json.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure a bundle: every metric with its 95 % interval, beside its baselines."""
    from mope.cli.measuring import write_facts
    from mope.cli.running import parse_mapping, print_json, print_rows
    from mope.data.load import read_examples
    from mope.evaluation.evaluate import check, collect, measure
    from mope.predictor.bundle import MoPE

    check(by, part)
    _check_folder(output)
    model = MoPE.from_pretrained(bundle, overlay=overlay)
    rows = read_examples(data, mapping=parse_mapping(mapping), tokenizer=tokenizer, limit=limit)
    print_rows(rows)
    found = collect(model, rows, part)
    report = measure(found, by, seed)
    document = {"bundle": bundle, "paths": data, **report.to_dict()}
    if output:
        _write(output, document, report, found)
    if facts:
        write_facts(model.folder, report, model.backend.name)
    if as_json:
        print_json(document)
    else:
        _print(report)


def _print(report: Report) -> None:
    from mope.cli.running import print_report
    from mope.evaluation.tables import summary

    typer.echo(f"{summary(report)}\n")
    print_report(report)
    for note in report.notes:
        typer.echo(f"note: {note}")


def _check_folder(output: Path | None) -> None:
    from mope.errors import ConfigError

    if output and output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}, which is a file", "a folder, or a new name")


def _write(folder: Path, document: dict[str, object], report: Report, rows: Rows) -> None:
    """Everything into `folder`, report.json last: where it stands, the rest is there."""
    import json

    from mope.evaluation.tables import markdown
    from mope.files import whole, write_text

    drawn = _pictures(report, rows)
    for name, png in drawn.items():
        with whole(folder / name) as partial:
            partial.write_bytes(png)
    write_text(folder / "report.md", markdown(report, list(drawn)))
    write_text(folder / "report.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    typer.echo(f"report in {folder}", err=True)


def _pictures(report: Report, rows: Rows) -> dict[str, bytes]:
    from mope.errors import MissingExtra
    from mope.evaluation.plots import pictures

    try:
        return pictures(report, rows)
    except MissingExtra as error:
        typer.echo(f"no pictures: {error}", err=True)
        return {}
