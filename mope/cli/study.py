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
        Literal["vtc", "paper"],
        typer.Argument(
            metavar="NAME",
            help="vtc: VTC's suites beside its logged runs on a real A10G; paper: the claims of Equinox's paper.",
        ),
    ],
    seed: Annotated[int, typer.Option(min=0, help="vtc: 0 is the draw of requests that was published.")] = 0,
    seeds: Annotated[int, typer.Option(min=2, help="paper: runs of each variant.")] = 10,
    hardware: Annotated[
        str | None, typer.Option(metavar="NAME", help="paper: MODEL@[Nx]GPU in place of the scenarios' own.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="paper: folder of report.html, results.json and config.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run a study and print its tables."""
    from mope.cli.running import print_json

    results = _vtc(seed) if name == "vtc" else _paper(seeds, hardware, output)
    if as_json:
        print_json(results)
    elif name == "vtc":
        _print_vtc(results)
    else:
        _print_claims(results["claims"])


def _vtc(seed: int) -> dict[str, Any]:
    from mope.sim.fidelity import compare, logged_runs, orders

    rows = []
    for run in logged_runs():
        typer.echo(f"{run.suite} {run.policy}", err=True)
        rows.append(compare(run, seed))
    return {"study": "vtc", "seed": seed, "runs": rows, "orders": orders(rows)}


def _paper(seeds: int, hardware: str | None, output: Path | None) -> dict[str, Any]:
    from mope.errors import ConfigError
    from mope.mapper.profile import Profile
    from mope.sim import paper_report

    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}", "a folder")
    if hardware is not None:
        Profile.load(hardware)
    results = paper_report.run(seeds, lambda text: typer.echo(text, err=True), hardware)
    if output is not None:
        typer.echo(f"{paper_report.write(output, results, seeds)}", err=True)
    return results


def _print_claims(claims: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    from mope.cli.running import table_console
    from mope.sim.paper_report import claim_cells

    table = Table("claim", "scenario", "ours", "against", box=None, header_style="bold")
    for column in ("paper", "ours", "95 % interval", "p", "verdict"):
        table.add_column(column, justify="right", no_wrap=True)
    for claim in claims:
        table.add_row(*claim_cells(claim))
    table_console(170).print(table)


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
