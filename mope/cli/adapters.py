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
    from mope.serving_adapters.registry import adapter_names, check, get_adapter

    if name:
        check(get_adapter(name), allow_untested=allow_untested)
    rows = [_row(one, allow_untested) for one in ([name] if name else adapter_names())]
    if as_json:
        print_json({"adapters": rows})
    else:
        _print(rows)


def _row(name: str, allow_untested: bool) -> dict[str, object]:
    """What is known of an adapter; one of another package that cannot be loaded says why."""
    from mope.errors import ConfigError
    from mope.serving_adapters.registry import find, get_adapter

    try:
        found = find(get_adapter(name))
    except ConfigError as error:
        row: dict[str, object] = dict.fromkeys(("installed", "tested", "about", "use"), "")
        return {"name": name, **row, "state": f"broken: {error.came}", "fits": False}
    return {
        "name": name,
        "state": found.state,
        "installed": found.version,
        "tested": found.adapter.tested,
        "fits": found.fits or (allow_untested and bool(found.version)),
        "about": found.adapter.about,
        "use": found.adapter.use,
    }


def _print(rows: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("adapter", "state", "installed", "tested", "use", box=None)
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "state", "installed", "tested", "use")))
    Console().print(table)
