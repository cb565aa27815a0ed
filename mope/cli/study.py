"""`mope study`: the studies that ship, run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table


def study(
    name: Annotated[
        Literal["vtc", "paper", "hardware", "search"],
        typer.Argument(
            metavar="NAME",
            help="vtc: VTC's suites beside its logged runs on a real A10G; paper: the claims of Equinox's paper and"
            " which part brings what; hardware: Equinox on several machines; search: numbers better than its own.",
        ),
    ],
    seed: Annotated[
        int,
        typer.Option(min=0, help="vtc: 0 is the draw of requests that was published; search: of its draws."),
    ] = 0,
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each variant; not for vtc.")] = 10,
    parts: Annotated[
        str, typer.Option(help="paper: some of claims, loads, ladder, table1, sweep, separated by commas.")
    ] = "claims,loads,ladder,table1,sweep",
    hardware: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="MODEL@[Nx]GPU. paper: for its claims, in place of the scenarios' own; hardware: several,"
            " separated by commas.",
        ),
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="search: numbers drawn.")] = 48,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of report.html, tables.md, results.json and config.json; not for vtc."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run a study and print its tables. On one core vtc takes half a minute, each other one about ten."""
    from mope.cli.running import print_json
    from mope.errors import ConfigError

    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}", "a folder")
    if name == "vtc":
        results = _vtc(seed)
    elif name == "paper":
        results = _paper(parts, seeds, hardware)
    else:
        results = _hardware(seeds, hardware) if name == "hardware" else _search(tries, seeds, seed)
    if output is not None and name != "vtc":
        _write(output, results)
    if as_json:
        print_json(results)
    elif name == "vtc":
        _print_vtc(results)
    else:
        _print_sheets(results)


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _vtc(seed: int) -> dict[str, Any]:
    from mope.sim.fidelity import compare, logged_runs, orders

    rows = []
    for run in logged_runs():
        typer.echo(f"{run.suite} {run.policy}", err=True)
        rows.append(compare(run, seed))
    return {"study": "vtc", "seed": seed, "runs": rows, "orders": orders(rows)}


def _paper(parts: str, seeds: int, hardware: str | None) -> dict[str, Any]:
    from mope.errors import ConfigError
    from mope.mapper.profile import Profile
    from mope.sim.paper_report import PARTS, run

    chosen = [part.strip() for part in parts.split(",") if part.strip()]
    for part in chosen:
        if part not in PARTS:
            raise ConfigError(f"--parts {part}", f"some of {', '.join(PARTS)}")
    if not chosen:
        raise ConfigError("--parts without a part", f"some of {', '.join(PARTS)}")
    if hardware is not None:
        Profile.load(hardware)
    return run(chosen, seeds, _tell, hardware)


def _hardware(seeds: int, hardware: str | None) -> dict[str, Any]:
    from mope.errors import ConfigError
    from mope.mapper.profile import Profile
    from mope.sim.hardware import MACHINES, study

    names = (
        [name.strip() for name in hardware.split(",") if name.strip()] if hardware is not None else MACHINES
    )
    if not names:
        raise ConfigError("--hardware without a name", "MODEL@[Nx]GPU, separated by commas")
    for name in names:
        Profile.load(name)
    return study(names, range(seeds), _tell)


def _search(tries: int, seeds: int, seed: int) -> dict[str, Any]:
    from mope.sim import memory_search
    from mope.sim.search import study

    return {**study(tries, range(seeds), _tell, seed), "memory": memory_search.study(range(seeds), _tell)}


def _write(output: Path, results: dict[str, Any]) -> None:
    from mope.sim.paper_report import write

    _tell(str(write(output, results)))


def _print_sheets(results: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from mope.cli.running import table_console
    from mope.sim.sheets import sheets

    console = table_console(220)
    for sheet in sheets(results):
        if sheet.many:
            continue
        table = Table(box=None, header_style="bold", title=sheet.title, title_justify="left")
        for place, column in enumerate(sheet.head):
            table.add_column(column, justify="left" if place < sheet.words else "right", no_wrap=True)
        for row in sheet.rows:
            table.add_row(*map(Text, row))
        console.print(table)
        console.print(Text(f"{sheet.text}\n", style="dim"))


def _print_vtc(results: Mapping[str, Any]) -> None:
    from mope.cli.running import table_console

    table_console(150).print(_table(results["runs"]))
    for one in results["orders"]:
        same = "the same" if one["same"] else f"other than ours: {' < '.join(one['ours'])}"
        typer.echo(f"{one['suite']}: fairest first {' < '.join(one['real'])}, {same}")


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("suite", "policy", box=None, header_style="bold")
    for column in (
        "tokens/s",
        "real",
        "off",
        "TTFT s",
        "real",
        "off",
        "by client",
        "diff max",
        "real",
        "mean",
        "real",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        speed, ttft, gap = row["tokens_per_s"], row["ttft_s"], row["difference"]
        clients = ", ".join(f"{one['ours']:.1f}/{one['real']:g}" for one in row["clients"].values())
        table.add_row(
            row["suite"], row["policy"],
            f"{speed['ours']:.0f}", f"{speed['real']:.0f}", f"{speed['off']:+.1%}",
            f"{ttft['ours']:.1f}", f"{ttft['real']:.1f}", f"{ttft['off']:+.1%}", clients,
            *(f"{gap[key][who]:.1f}" for key in ("max", "mean") for who in ("ours", "real")),
        )  # fmt: skip
    return table
