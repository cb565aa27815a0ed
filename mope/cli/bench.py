"""`mope bench`: how long the hot paths take on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mope.predictor.bundle import MoPE


class What(str, Enum):
    """What can be timed."""

    predictor = "predictor"
    mapper = "mapper"
    scheduler = "scheduler"


def bench(
    what: Annotated[
        What,
        typer.Argument(
            help="predictor: router, forecasts, cold start. mapper: tokens to seconds and money. "
            "scheduler: submit, next and finish by number of clients."
        ),
    ] = What.predictor,
    bundle: Annotated[str, typer.Argument(help="A bundle; default: the one that ships.")] = "",
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Prompts to time with; default: made-up chats.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnx-int8, onnx or torch.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls of each kind.")] = 100,
    clients: Annotated[
        list[int] | None,
        typer.Option(min=1, help="scheduler: active clients; default: 100, 10,000, 1,000,000."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Time a hot path on this machine: look at load_1m before believing a number."""
    from mope.bench import machine
    from mope.cli.running import print_json

    numbers: dict[str, object] = dict(machine())
    if what is What.scheduler:
        numbers |= _scheduler(clients, repeats)
    else:
        from mope.predictor.bundle import MoPE

        loaded = MoPE.from_pretrained(bundle or None, backend=backend, threads=threads)
        if what is What.predictor:
            numbers |= _predictor(loaded, bundle or None, data, repeats)
        else:
            from mope.bench_mapper import mapper_latency

            numbers |= mapper_latency(loaded, repeats=repeats)
    if as_json:
        print_json(numbers)
    else:
        _print(numbers)


def _predictor(
    loaded: MoPE, source: str | None, data: Sequence[str] | None, repeats: int
) -> dict[str, object]:
    """Router, forecasts one by one and in batches of 32 under both routings, cold start."""
    from dataclasses import replace

    from mope.bench import cold_start, predictor_latency, router_latency
    from mope.data.load import read_examples
    from mope.data.synthetic import synthetic

    requests = (read_examples(list(data), limit=2000) if data else synthetic(500)).requests
    numbers: dict[str, object] = {}
    numbers["bytes"] = sum(
        p.stat().st_size for p in loaded.folder.rglob("*") if p.is_file() and "run" not in p.parts
    )
    numbers |= {
        f"router_{k}": v for k, v in router_latency(loaded.lexical, requests, repeats=repeats).items()
    }
    default = loaded.config.routing
    for routing in ("hard", "soft"):
        loaded.config = replace(loaded.config, routing=routing)
        numbers |= {
            f"{routing}_{k}": v for k, v in predictor_latency(loaded, requests, repeats=repeats).items()
        }
    return numbers | {"default_routing": default, **cold_start(source)}


def _scheduler(clients: Sequence[int] | None, repeats: int) -> dict[str, float]:
    """Time a cycle and memory a client, policies and plain queues side by side."""
    from mope.bench_scheduler import CLIENTS, scheduler_latency, scheduler_memory

    return scheduler_latency(clients or CLIENTS, repeats=repeats) | scheduler_memory()


def _print(numbers: Mapping[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value", box=None)
    for name, value in numbers.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
