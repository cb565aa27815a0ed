"""`mope predict --file F --output O`: which options belong to it, progress, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mope.errors import ConfigError

if TYPE_CHECKING:
    from mope.bulk.answers import Maker
    from mope.bulk.run import Options, Summary
    from mope.mapper.metrics import Load


def check_options(file: Path | None, output: Path | None, given: Mapping[str, bool]) -> None:
    """Raise `ConfigError` where options that only make sense with --file and --output stand alone."""
    if output is None and (alone := [name for name, there in given.items() if there]):
        raise ConfigError(f"{alone[0]} without --output", "--file FILE --output FILE beside it")
    if output is not None and (file is None or str(file) == "-"):
        raise ConfigError("--output without --file", "--file FILE with the prompts")


def split_columns(columns: str | None) -> tuple[str, ...] | None:
    """`a,b` as names; an empty text names none, None leaves the choice to us."""
    if columns is None:
        return None
    return tuple(name.strip() for name in columns.split(",") if name.strip())


def bulk_maker(
    lengths: Maker,
    hardware: str | None,
    prices: str | None,
    price_list: Path | None,
    load: Load,
    usd_per_gpu_hour: float | None,
) -> Maker:
    """Lengths that go on to seconds and money."""
    from mope.bulk.answers import Lengths
    from mope.bulk.forecasts import Forecasts
    from mope.cli.running import asked_price
    from mope.mapper.profile import Profile

    if not isinstance(lengths, Lengths):
        raise ConfigError(
            "--router-only with --hardware or --prices", "lengths, which the router does not know"
        )
    price = asked_price(prices, price_list)
    profile = None if hardware is None else Profile.load(hardware)
    return Forecasts(lengths, profile, price, load, usd_per_gpu_hour)


def predict_bulk(path: Path, output: Path, maker: Maker, options: Options, as_json: bool) -> None:
    """Predict a file with a progress bar, and print what came of it."""
    from mope.bulk.run import predict_file
    from mope.cli.running import progress_bar

    bar = progress_bar()
    task = bar.add_task("predict", total=None, note="")

    def tell(done: int, rows: int) -> None:
        bar.start()  # not before: what is refused, and the other processes of a launcher, show none
        bar.update(task, total=rows, completed=done, note=f"{done:,} of {rows:,} rows")

    try:
        summary = predict_file(path, output, maker, options, tell)
    finally:
        bar.stop()
    if summary is not None:
        _print_summary(output, summary)
    if summary is not None and as_json:
        _print_json(output, summary)


def _print_summary(output: Path, summary: Summary) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    failed = sum(summary.errors.values())
    text = f"{output}: {summary.rows:,} rows, {failed:,} could not be predicted, {summary.seconds:.1f} s"
    resumed = f"; {summary.resumed:,} were finished before" if summary.resumed else ""
    console.print(text + resumed, markup=False, soft_wrap=True)
    for reason, count in summary.errors.most_common():
        console.print(f"  {count:,} x {reason}", markup=False, soft_wrap=True)


def _print_json(output: Path, summary: Summary) -> None:
    from mope.cli.running import print_json

    print_json({
        "output": str(output), "rows": summary.rows, "errors": dict(summary.errors.most_common()),
        "resumed_rows": summary.resumed, "seconds": summary.seconds,
    })  # fmt: skip
