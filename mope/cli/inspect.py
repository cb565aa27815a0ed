"""`mope inspect`: what data is good for, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mope.cli.options import Mapping, Tokenizer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mope.data.records import Example


def inspect(
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA...", help="Files, folders or Hub ids of (prompt, answer) rows."),
    ],
    mapping: Mapping = None,
    tokenizer: Tokenizer = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first rows only.")] = None,
    curve: Annotated[
        bool, typer.Option("--curve/--no-curve", help="The error of boosted trees at five sizes of the data.")
    ] = True,
    sample: Annotated[
        int, typer.Option(min=1, help="Examples the learning curve is made of, at most.")
    ] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples behind every interval.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of lengths and curve (.png, .svg, .pdf).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Lengths by model and source, limits, duplicates, leaks, noise, and how much data is needed."""
    import itertools

    from mope.cli.running import parse_mapping, print_json, table_console
    from mope.data.load import iter_examples
    from mope.extras import require
    from mope.inspect.run import inspect_data
    from mope.inspect.tables import tables

    if curve:
        require("train", "the learning curve (--no-curve goes without it)")
    if plot:
        from mope.inspect.plot import check

        check(plot)
    refused: Counter[str] = Counter()
    notes: list[str] = []
    read = iter_examples(
        data, mapping=parse_mapping(mapping), tokenizer=tokenizer, refused=refused, notes=notes
    )
    try:
        with _progress() as bar:
            task = bar.add_task("reading", total=None)
            found = inspect_data(
                _counted(itertools.islice(read, limit), bar, task),
                sample=sample, curve=curve, seed=seed,
                step=lambda said: bar.update(task, description=f"learning curve: {said}"),
            )  # fmt: skip
    finally:  # where nothing could be used, this says why
        _print_refused(refused, notes)
    if plot:
        from mope.inspect.plot import draw

        draw(found, plot)
    if as_json:
        print_json({"paths": data, "refused": dict(refused), "notes": notes, **found.to_dict()})
    else:
        console = table_console()
        for item in tables(found):
            console.print(item, markup=False)


def _print_refused(refused: Counter[str], notes: Sequence[str]) -> None:
    from rich.console import Console

    stderr = Console(stderr=True)
    for line in [*(f"{count:,} x refused: {why}" for why, count in refused.most_common()), *notes]:
        stderr.print(line, markup=False)


def _progress() -> Progress:
    """On stderr: rows so far, time taken."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,} examples"),
        TimeElapsedColumn(), console=Console(stderr=True),
    )  # fmt: skip


def _counted(examples: Iterable[Example], bar: Progress, task: TaskID) -> Iterator[Example]:
    for number, example in enumerate(examples, 1):
        yield example
        if not number % 1000:
            bar.update(task, completed=number)
