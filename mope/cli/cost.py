"""`mope cost`: tokens, dollars and GPU time of a file of prompts before one is sent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mope.cost import Bill, Busy, FileCost
    from mope.types import Span


def cost(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Prompts: one a line (.txt), or the data forms of `mope train`; - for stdin."
        ),
    ],
    prices: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The hosted model whose price is asked.")
    ] = None,
    hardware: Annotated[
        str | None, typer.Option(metavar="NAME", help="Own hardware, MODEL@[Nx]GPU: llama-2-7b@a100-80g.")
    ] = None,
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
    batch: Annotated[int, typer.Option(min=1, help="Requests that own hardware runs at a time.")] = 1,
    usd_per_gpu_hour: Annotated[
        float | None, typer.Option(help="What an own GPU costs; default: its usual price, where known.")
    ] = None,
    draws: Annotated[int, typer.Option(help="How often the totals are drawn.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    backend: Annotated[str, typer.Option(help="auto, onnx-int8, onnx or torch.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Forecast what a file of prompts will take, with 80 % intervals of the totals.

    Give --prices, --hardware or both. The intervals hold for prompts of the kind that the bundle was trained on.
    """
    from datetime import date

    from mope.cli.prompts import read_prompts
    from mope.cli.running import asked_price, print_json
    from mope.cli.sizes import read_sizes
    from mope.cost import Plan, file_cost
    from mope.errors import ConfigError
    from mope.mapper.profile import Profile
    from mope.predictor.bundle import MoPE

    if prices is None and hardware is None:
        raise ConfigError("neither --prices nor --hardware", "one of them, or both")
    plan = Plan(draws, seed, cached, batch, usd_per_gpu_hour)
    price = asked_price(prices, price_list)
    profile = None if hardware is None else Profile.load(hardware)
    requests, sizes = read_prompts(None, file, sys.stdin, model, max_tokens), read_sizes(file)
    forecasts = MoPE.from_pretrained(bundle or None, backend=backend, threads=threads).predict(requests)
    told, labels = (sizes.tokens, sizes.labels) if sizes else (None, None)
    today = date.today()
    found = file_cost(requests, forecasts, price, profile, plan, today=today, sizes=told, labels=labels)
    if found.bill and found.bill.warning:
        typer.echo(f"warning: {found.bill.warning}", err=True)
    if as_json:
        columns = list(sizes.columns) if sizes else []
        print_json({"file": str(file), "columns": columns, **found.to_dict()})
    else:
        _print(found)


def _print(found: FileCost) -> None:
    from rich.table import Table

    from mope.cli.running import table_console

    table = Table("", "total", "80 % interval", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    rows = [
        ("requests", f"{found.requests:,}", f"in {found.conversations:,} conversations"),
        ("prompt tokens", *_tokens(found.prompt_tokens)),
        ("output tokens", *_tokens(found.output_tokens)),
        *(_bill(found.bill) if found.bill else ()),
        *(_busy(found.busy) if found.busy else ()),
    ]
    for row in rows:
        table.add_row(*row)
    table_console(100).print(table)
    for note in _notes(found):
        typer.echo(note)


def _bill(bill: Bill) -> list[tuple[str, str, str]]:
    money = bill.price.currency
    parts = (("prompts", bill.prompt), ("answers", bill.output), ("cost", bill.total))
    return [(name, *_money(value, money)) for name, value in parts]


def _busy(busy: Busy) -> list[tuple[str, str, str]]:
    rows = [("GPU-seconds", *_decimal(busy.gpu_s)), ("engine seconds", *_decimal(busy.engine_s))]
    return [*rows, ("GPU cost", *_money(busy.cost, "USD"))] if busy.cost else rows


def _tokens(value: Span) -> tuple[str, str]:
    ends = "counted" if value.low == value.high else f"{value.low:,.0f} to {value.high:,.0f}"
    return f"{value.value:,.0f}", ends


def _decimal(value: Span, unit: str = "") -> tuple[str, str]:
    digits = 2 if value.value >= 10 else 4 if value.value >= 0.01 else 6
    low, high = (f"{end:,.{digits}f}" for end in (value.low, value.high))
    return f"{value.value:,.{digits}f}{unit}", "" if value.low == value.high else f"{low} to {high}"


def _money(value: Span, currency: str) -> tuple[str, str]:
    return _decimal(value, f" {currency}")


def _notes(found: FileCost) -> list[str]:
    counted = found.requests - found.estimated
    notes = [
        f"prompt sizes: {counted:,} from the file, {found.estimated:,} estimated at four characters a token"
    ]
    if found.bill:
        price = found.bill.price
        cached = "" if price.cached_input is None else f", cached input {price.cached_input:g}"
        notes.append(
            f"price: {price.model}, input {price.input:g}{cached}, output {price.output:g} {price.currency} "
            f"per million tokens, as of {price.date}"
        )
    if found.busy:
        busy = found.busy
        state = "calibrated" if busy.calibrated else "uncalibrated: datasheet numbers, wider interval"
        hourly = "" if busy.usd_per_gpu_hour is None else f", {busy.usd_per_gpu_hour:g} USD per GPU-hour"
        notes.append(f"hardware: {busy.hardware} ({state}), {busy.batch} at a time{hourly}")
    return [*notes, "the intervals hold for prompts of the kind that the bundle was trained on"]
