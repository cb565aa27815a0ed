"""`mope adapters`: the engines there are adapters for, and whether what is installed fits."""

from __future__ import annotations

from typing import Annotated

import typer


def adapters(
    name: Annotated[str, typer.Argument(help="Check this one: exit code 2 where it does not fit.")] = "",
    allow_untested: Annotated[
        bool, typer.Option("--allow-untested", help="Take engine versions that were not tested.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the adapters for serving engines, with what is installed and whether it fits."""
    from mope.cli.running import print_json
    from mope.serving_adapters.registry import adapter_names, check, find, get_adapter

    found = [find(get_adapter(one)) for one in ([name] if name else adapter_names())]
    rows = [
        {
            "name": one.adapter.name,
            "state": one.state,
            "installed": one.version,
            "tested": one.adapter.tested,
            "fits": one.fits or (allow_untested and bool(one.version)),
            "about": one.adapter.about,
            "use": one.adapter.use,
        }
        for one in found
    ]
    if name:
        check(found[0].adapter, allow_untested=allow_untested)
    if as_json:
        print_json({"adapters": rows})
    else:
        _print(rows)


def _print(rows: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("adapter", "state", "installed", "tested", "use", box=None)
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "state", "installed", "tested", "use")))
    Console().print(table)
