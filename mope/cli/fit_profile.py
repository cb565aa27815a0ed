"""`mope fit-profile`: measured tables or an engine's log into a hardware profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mope.mapper.profile import Profile


def fit_profile(
    tables: Annotated[
        list[Path], typer.Argument(metavar="TABLE...", help="Layer tables, or one log of steps or requests.")
    ],
    model: Annotated[str, typer.Option(help="A known model, or the path of its config.json.")],
    gpu: Annotated[str, typer.Option(help="A known GPU, such as a100-80g.")],
    tp: Annotated[int, typer.Option(min=1, max=8, help="GPUs the model is cut over.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Where the profile goes; default: NAME.json here.")
    ] = None,
    name: Annotated[str, typer.Option(help="The profile's name; default: MODEL@NxGPU.")] = "",
    plot: Annotated[Path | None, typer.Option(help="A PNG of fitted against measured times.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the held-out folds.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Fit what hardware reaches from measurements, and print the error on points held out.

    TABLE is any of: Vidur's layer, attention and network CSVs; AIConfigurator's attention Parquet; LLMServingSim's
    CSVs; a log of an engine's steps (CSV with batch, context, seconds and, where prompts are read, tokens); or of its
    requests as VTC and vLLM keep them. Held-out errors: random folds, and each range of sizes left out in turn.
    The profile's path is then a name for `--hardware`.
    """
    from mope.cli.running import print_json
    from mope.mapper import gpus
    from mope.mapper.build import Measured, build_profile
    from mope.mapper.profile import nearest
    from mope.mapper.shapes import ModelShape
    from mope.mapper.tables import read_points

    shape, card = ModelShape.load(model), gpus.known(gpu)
    heads, kv_heads = shape.heads_per_gpu(tp), shape.kv_heads_per_gpu(tp)
    measured = [
        Measured(points, path.name)
        for path in tables
        for points in read_points(path, tp=tp, heads=heads, kv_heads=kv_heads)
    ]
    donor = nearest(shape, card, tp)
    profile = build_profile(shape, card, tp, measured, name=name, donor=donor, seed=seed)
    target = output or Path(f"{profile.name.replace('/', '-')}.json")
    profile.save(target)
    if plot is not None:
        from mope.mapper.plots import draw_fit

        draw_fit(profile, measured, plot)
    if as_json:
        print_json({"path": str(target), **profile.to_json()})
    else:
        _print(profile, target)


def _print(profile: Profile, target: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("part", "left out", "points", "median", "90 % below"):
        table.add_column(column, justify="left" if column in ("part", "left out") else "right")
    for part, errors in profile.error.items():
        held = {"random fifths": errors["inside"], **errors["ranges"]}
        for which, error in held.items():
            told = f"{error['points']:,}", f"{error['median']:.1%}", f"{error['p90']:.1%}"
            table.add_row(part if which == "random fifths" else "", which, *told)
    console = Console(soft_wrap=True)
    console.print(f"{profile.name}: relative error on points held out", style="bold", markup=False)
    console.print(table)
    for part, origin in profile.origin.items():
        if part not in profile.error:
            console.print(f"{part}: {origin}", markup=False)
    console.print(f"written to {target}; use it with --hardware {target}", markup=False)
