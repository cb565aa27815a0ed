"""`mope train`: prompts and answers into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mope.cli.options import Mapping, Tokenizer


def train(
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA...", help="Files, folders or Hub ids of (prompt, answer) rows."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the bundle; it also gets run/ with logs.")
    ],
    preset: Annotated[
        str | None, typer.Option(help="tiny, minilm-3, minilm, shipped or bert-base; default minilm.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Your own recipe (TOML), over the preset if both are given.")
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="BUNDLE", help="Start all weights from this bundle (folder or Hub id)."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; repeat for more.")
    ] = None,
    mapping: Mapping = None,
    tokenizer: Tokenizer = None,
    limit: Annotated[int | None, typer.Option(help="Use the first rows only.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier run into this folder stopped.")
    ] = False,
    evaluate: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Measure the bundle on the test part.")
    ] = True,
    show_settings: Annotated[
        bool, typer.Option("--settings", help="List every setting with its default, and exit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train a bundle: router, experts, proxy and floors, calibrated, with measured facts.

    A run that was stopped, or a recipe with more epochs, goes on with --resume: finished stages are kept.
    """
    from mope.extras import require

    require("train", "training")
    from mope.cli.running import parse_mapping, print_json, print_report, print_rows, progress_bar
    from mope.data.load import read_examples
    from mope.errors import ConfigError
    from mope.settings import describe_settings
    from mope.training.recipe import Recipe, load_recipe

    if show_settings:
        typer.echo(describe_settings(Recipe))
        raise typer.Exit
    chosen = load_recipe(_preset(preset, recipe, origin), recipe, settings or ())
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}, which is a file", "a folder, or a new name")
    rows = read_examples(data, mapping=parse_mapping(mapping), tokenizer=tokenizer, limit=limit)
    print_rows(rows)
    from mope.training.train import train as run

    folder = run(chosen, rows, output, origin=origin, resume=resume, progress=progress_bar())
    from mope.training.ranks import first

    if not first():  # one of several processes: the first measures and prints
        return
    report = None
    if evaluate:
        from mope.cli.measuring import measure_into_facts

        report = measure_into_facts(folder, rows)
    if as_json:
        print_json({"bundle": str(folder), "report": report.to_dict() if report else None})
    elif report:
        print_report(report)


def _preset(asked: str | None, recipe: Path | None, origin: str | None) -> str | None:
    """The preset that was asked for, else the one that the bundle to start from was trained with."""
    if asked or recipe or origin is None:
        return asked
    from mope.hub import local_folder
    from mope.predictor import layout
    from mope.predictor.config import BundleConfig
    from mope.training.recipe import presets

    trained = BundleConfig.from_json(layout.read_text(local_folder(origin), layout.CONFIG)).preset
    return trained if trained in presets() else None
