"""`mope bench`: how long the hot paths take on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    online = "online"
    simulator = "simulator"
    kernels = "kernels"


def bench(
    what: Annotated[
        What,
        typer.Argument(
            help="predictor: router, forecasts, cold start. mapper: tokens to seconds and money. "
            "scheduler: submit, next and finish by number of clients. simulator: requests a second. "
            "kernels: the experts in every backend, minutes."
        ),
    ] = What.predictor,
    bundle: Annotated[str, typer.Argument(help="A bundle; default: the one that ships.")] = "",
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Prompts to time with; default: made-up chats.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnx-int8, onnx, torch or triton.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls of each kind.")] = 100,
    clients: Annotated[
        list[int] | None,
        typer.Option(min=1, help="scheduler: active clients; default: 100, 10,000, 1,000,000."),
    ] = None,
    requests: Annotated[int, typer.Option(min=100, help="simulator: requests of a long run.")] = 100_000,
    rows: Annotated[int, typer.Option(min=1, help="kernels: rows of the test part of --data.")] = 500,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help="kernels: bert-base, minilm; default: both.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="kernels: roofline, ops, passes, forecasts, host, callers, accuracy, numerics."),
    ] = None,
    with_compile: Annotated[
        bool, typer.Option("--compile", help="kernels: torch.compile, too; a minute a network.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Time a hot path on this machine: look at load_1m before believing a number."""
    from mope.cli.running import print_json
    from mope.machine import machine

    numbers: dict[str, object] = dict(machine())
    if what is What.scheduler:
        numbers |= _scheduler(clients, repeats)
    elif what is What.online:
        from mope.bench.online import online_latency

        numbers |= online_latency(repeats=repeats)
    elif what is What.simulator:
        from mope.bench.simulator import simulator_speed

        numbers |= simulator_speed(requests=requests)
    elif what is What.kernels:
        numbers = _kernels(bundle or None, data, rows, shapes, only, repeats, threads, with_compile)
    else:
        from mope.predictor.bundle import MoPE

        loaded = MoPE.from_pretrained(bundle or None, backend=backend, threads=threads)
        if what is What.predictor:
            numbers |= _predictor(loaded, bundle or None, data, repeats)
        else:
            from mope.bench.mapper import mapper_latency

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

    from mope.bench.predictor import cold_start, predictor_latency, router_latency
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
    from mope.bench.scheduler import CLIENTS, scheduler_latency, scheduler_memory

    return scheduler_latency(clients or CLIENTS, repeats=repeats) | scheduler_memory()


def _kernels(
    source: str | None, data: Sequence[str] | None, rows: int, shapes: Sequence[str] | None,
    only: Sequence[str] | None, repeats: int, threads: int, with_compile: bool,
) -> dict[str, object]:  # fmt: skip
    """Operations, passes and forecasts; the error is told on the test part of `data`."""
    from rich.console import Console

    from mope.extras import require

    require("torch", "mope bench kernels")
    from mope.bench.kernels.run import bench_kernels
    from mope.bench.kernels.timing import Budget
    from mope.data.load import read_examples
    from mope.data.split import split
    from mope.data.synthetic import synthetic

    known = synthetic(rows)
    if data:
        found = read_examples(list(data))
        known = found.take(split(found)["test"][:rows])
    return bench_kernels(
        source, known, shapes=shapes, budget=Budget(repeats=repeats), threads=threads,
        with_compile=with_compile, with_accuracy=bool(data), only=only, log=Console(stderr=True).print,
    )  # fmt: skip


def _print(numbers: Mapping[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value", box=None)
    for name, value in _flat(numbers):
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console().print(table)


def _flat(numbers: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested numbers as lines; the place in a list counts from 0."""
    if isinstance(numbers, Mapping):
        for name, value in numbers.items():
            yield from _flat(
                value, f"{prefix}{name}: " if isinstance(value, (Mapping, list)) else f"{prefix}{name}"
            )
    elif isinstance(numbers, list):
        for place, value in enumerate(numbers):
            yield from _flat(value, f"{prefix}{place}: ")
    else:
        yield prefix, numbers
