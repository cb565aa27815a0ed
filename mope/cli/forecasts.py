"""Whole forecasts on the terminal: what `--hardware` and `--prices` add to `mope predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mope.types import Forecast, Request, Span

if TYPE_CHECKING:
    from mope.forecast import Forecaster
    from mope.mapper.metrics import Load
    from mope.predictor.bundle import MoPE

PLACES = 4


def make_forecaster(
    bundle: MoPE,
    hardware: str | None,
    prices: str | None,
    price_list: Path | None,
    usd_per_gpu_hour: float | None,
    load: Load,
) -> Forecaster:
    """A forecaster from the command's options; warns on stderr where a price is old."""
    from datetime import date

    from mope.cli.running import asked_price
    from mope.forecast import Forecaster

    price = asked_price(prices, price_list)
    if price is not None and (warning := price.warning(date.today())):
        typer.echo(f"warning: {warning}", err=True)
    return Forecaster(bundle, hardware, price, load=load, usd_per_gpu_hour=usd_per_gpu_hour)


def print_forecasts(requests: Sequence[Request], made: Forecaster, as_json: bool) -> None:
    """All of each forecast: a block for each prompt, or one JSON document."""
    from mope.cli.running import print_json

    forecasts = made.forecast(requests)
    if as_json:
        print_json([_plain(request, found) for request, found in zip(requests, forecasts, strict=True)])
        return
    for request, found in zip(requests, forecasts, strict=True):
        _print(request, found)


def _plain(request: Request, found: Forecast) -> dict[str, Any]:
    told = asdict(found)
    for name, value in told.items():
        if isinstance(value, tuple):
            told[name] = Span(*value)._asdict()
    return {"prompt": request.prompt, **told}


def _print(request: Request, found: Forecast) -> None:
    from rich.table import Table
    from rich.text import Text

    from mope.cli.running import shown, table_console

    table = Table("", "forecast", "80 % interval", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    length = found.length
    table.add_row("prompt tokens", f"{found.prompt_tokens:,}", "" if request.prompt_tokens else "estimated")
    table.add_row("output tokens", *_cells(Span(length.tokens, length.low, length.high), ",.0f"))
    for name, value, form in _lines(found):
        if isinstance(value, Span):
            table.add_row(name, *_cells(value, form))
        elif value is not None:
            table.add_row(name, format(value, form), "")
    console = table_console(100)
    console.print(Text(shown(request.prompt), style="bold"))
    console.print(table)
    if found.hardware:
        console.print(_hardware(found), markup=False, highlight=False, soft_wrap=True)


def _lines(found: Forecast) -> list[tuple[str, Span | float | None, str]]:
    money = f"cost, {found.currency}"
    return [
        ("TTFT, s", found.ttft_s, f".{PLACES}f"),
        ("TPOT, s", found.tpot_s, f".{PLACES}f"),
        ("latency, s", found.latency_s, ".2f"),
        ("tokens/s", found.tokens_per_s, ",.1f"),
        ("MFU", found.mfu, ".1%"),
        ("MBU", found.mbu, ".1%"),
        ("GPU use", found.gpu_util, ".1%"),
        ("KV blocks", found.kv_blocks, ",.0f"),
        ("KV cache, MiB", _mib(found.kv_bytes), ",.0f"),
        ("GPU-seconds", found.gpu_s, ".3f"),
        (money, found.cost, ".6f"),
    ]


def _mib(value: Span | None) -> Span | None:
    return None if value is None else Span(*(part / 2**20 for part in value))


def _cells(value: Span, form: str) -> tuple[str, str]:
    return format(value.value, form), f"{format(value.low, form)} to {format(value.high, form)}"


def _hardware(found: Forecast) -> str:
    return found.hardware + (
        "" if found.calibrated else ": uncalibrated, from datasheets; measure: mope fit-profile"
    )
