"""`mope cost`: tokens and dollars of a file of prompts before one is sent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mope.cost import FileCost
    from mope.types import Span


def cost(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Prompts: one a line (.txt), or the data forms of `mope train`; - for stdin."
        ),
    ],
    prices: Annotated[str, typer.Option(metavar="MODEL", help="The hosted model whose price is asked.")],
    price_list: Annotated[
        Path | None, typer.Option(help="JSON with prices of your own; they go before those that ship.")
    ] = None,
    bundle: Annotated[str, typer.Option(help="Bundle folder or Hub id; default: the one that ships.")] = "",
    model: Annotated[
        str | None, typer.Option(help="The served model's name, as in the training data.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The max_tokens of every request.")] = None,
    cached: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of prompt tokens found in the provider's cache.")
    ] = 0.0,
    draws: Annotated[int, typer.Option(help="How often the totals are drawn.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    backend: Annotated[str, typer.Option(help="auto, onnx-int8, onnx or torch.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Forecast what a file of prompts will cost, with 80 % intervals of the totals.

    The intervals hold for prompts of the kind that the bundle was trained on.
    """
    from datetime import date

    from mope.cli.prompts import read_prompts
    from mope.cli.running import print_json
    from mope.cli.sizes import read_sizes
    from mope.cost import Plan, file_cost
    from mope.mapper.prices import PriceList
    from mope.predictor.bundle import MoPE

    price, plan = PriceList.load(price_list).price(prices), Plan(draws, seed, cached)
    requests = read_prompts(None, file, sys.stdin, model, max_tokens)
    sizes = read_sizes(file)
    forecasts = MoPE.from_pretrained(bundle or None, backend=backend, threads=threads).predict(requests)
    told, labels = (sizes.tokens, sizes.labels) if sizes else (None, None)
    found = file_cost(requests, forecasts, price, plan, today=date.today(), sizes=told, labels=labels)
    if found.warning:
        typer.echo(f"warning: {found.warning}", err=True)
    if as_json:
        columns = list(sizes.columns) if sizes else []
        print_json({"file": str(file), "columns": columns, **found.to_dict()})
    else:
        _print(found)


def _print(found: FileCost) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "total", "80 % interval", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    conversations = f"in {found.conversations:,} conversations"
    table.add_row("requests", f"{found.requests:,}", conversations)
    table.add_row("prompt tokens", *_tokens(found.prompt_tokens))
    table.add_row("output tokens", *_tokens(found.output_tokens))
    for name, value in (("prompts", found.prompt_cost), ("answers", found.output_cost), ("cost", found.cost)):
        table.add_row(name, *_money(value, found.price.currency))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    for note in _notes(found):
        typer.echo(note)


def _tokens(value: Span) -> tuple[str, str]:
    ends = "counted" if value.low == value.high else f"{value.low:,.0f} to {value.high:,.0f}"
    return f"{value.value:,.0f}", ends


def _money(value: Span, currency: str) -> tuple[str, str]:
    digits = 2 if value.value >= 10 else 4 if value.value >= 0.01 else 6
    low, high = (f"{end:,.{digits}f}" for end in (value.low, value.high))
    return f"{value.value:,.{digits}f} {currency}", "" if value.low == value.high else f"{low} to {high}"


def _notes(found: FileCost) -> list[str]:
    counted = found.requests - found.estimated
    price = found.price
    cached = "" if price.cached_input is None else f", cached input {price.cached_input:g}"
    return [
        f"prompt sizes: {counted:,} from the file, {found.estimated:,} estimated at four characters a token",
        f"price: {price.model}, input {price.input:g}{cached}, output {price.output:g} {price.currency} "
        f"per million tokens, as of {price.date}",
    ]
