"""`mope study`: the studies that ship, run again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.table import Table


def study(
    name: Annotated[
        Literal["vtc"],
        typer.Argument(metavar="NAME", help="vtc: VTC's suites beside its logged runs on a real A10G."),
    ],
    seed: Annotated[int, typer.Option(min=0, help="0 is the draw of requests that was published.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run a study and print its tables."""
    from mope.cli.running import print_json
    from mope.sim.fidelity import compare, logged_runs, orders

    rows = []
    for run in logged_runs():
        typer.echo(f"{run.suite} {run.policy}", err=True)
        rows.append(compare(run, seed))
    if as_json:
        print_json({"study": name, "seed": seed, "runs": rows, "orders": orders(rows)})
    else:
        _print(rows, orders(rows))


def _print(rows: list[dict[str, Any]], ordered: list[dict[str, Any]]) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 150).print(_table(rows))
    for one in ordered:
        same = "the same" if one["same"] else f"other than ours: {' < '.join(one['ours'])}"
        typer.echo(f"{one['suite']}: fairest first {' < '.join(one['real'])}, {same}")


def _table(rows: list[dict[str, Any]]) -> Table:
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
