"""`mope predict`: prompts into forecasts of their answers' length."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

MOST_TOKENS = 2**31 - 1


def predict(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="[BUNDLE] PROMPT", help="A bundle (folder or Hub id) and a prompt, or a prompt alone."
        ),
    ] = "",
    prompt: Annotated[str | None, typer.Argument(hidden=True)] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="Prompts: one a line (.txt), or the data forms of `mope train`; - for stdin."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The served model's name, as in the training data.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, max=MOST_TOKENS, help="The request's max_tokens.")
    ] = None,
    overlay: Annotated[
        str | None,
        typer.Option(help="A file of `mope calibrate` instead of those beside the bundle; none for none."),
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnx-int8, onnx or torch.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    hardware: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="MODEL@[Nx]GPU or a profile's file: adds seconds, utilisation, KV blocks."
        ),
    ] = None,
    prices: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The hosted model whose price is asked: adds money.")
    ] = None,
    price_list: Annotated[
        Path | None, typer.Option(help="JSON with prices of your own; they go before those that ship.")
    ] = None,
    usd_per_gpu_hour: Annotated[
        float | None,
        typer.Option(min=0, help="Without --prices: what a GPU costs; default: its usual price."),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Sequences in the running batch, the request among them.")
    ] = 1,
    context: Annotated[float, typer.Option(min=0, help="Tokens of each of the others in that batch.")] = 0,
    step_tokens: Annotated[
        int, typer.Option(min=1, help="Chunked prefill: the most tokens in a step.")
    ] = 2048,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Forecasts of --file, row by row: a .parquet or .jsonl file."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of the file to carry into --output: a,b; '' for none.")
    ] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="Column names that are not recognised: prompt=COLUMN.")
    ] = None,
    router_only: Annotated[
        bool, typer.Option("--router-only", help="Only the bucket, by the cheap router, into --output.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes for --output: one for each GPU, or one.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an --output that was killed.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output.")] = False,
) -> None:
    """Forecast how many tokens the answer to a prompt will have.

    Without a bundle, the one that ships with mope answers. The range is the calibrated 80 % interval.
    With --hardware the forecast goes on to TTFT, TPOT, latency, tokens/s, MFU, MBU, GPU use, KV blocks and
    GPU-seconds, for the request alone or in a running batch; with --prices to money.
    With --output a file of any size is forecast in order, a row for each row, on every GPU of the machine.
    """
    from mope.cli.bulk import check_options
    from mope.cli.forecasts import make_forecaster, print_forecasts
    from mope.cli.prompts import read_prompts, split_arguments
    from mope.cli.running import forecast_table, parse_mapping, print_json
    from mope.errors import ConfigError
    from mope.mapper.metrics import Load
    from mope.predictor.bundle import MoPE

    check_options(file, output, {
        "--columns": columns is not None, "--router-only": router_only, "--processes": processes is not None,
        "--resume": resume, "--force": force,
    })  # fmt: skip
    source, text = split_arguments(bundle, prompt, file is not None)
    load = Load(batch, context, step_tokens)
    if overlay is not None and output is not None:
        raise ConfigError("--overlay with --output", "the overlay's file beside the bundle, in overlays/")
    if file is not None and output is not None:
        from mope.bulk.answers import Buckets, Lengths, Maker
        from mope.bulk.run import Options
        from mope.cli.bulk import bulk_maker, predict_bulk, split_columns

        whole = hardware is not None or prices is not None
        maker: Maker = Buckets.of(source) if router_only else Lengths.of(source, backend, threads)
        if whole:
            maker = bulk_maker(maker, hardware, prices, price_list, load, usd_per_gpu_hour)
        options = Options(
            split_columns(columns), parse_mapping(mapping), model, max_tokens, processes, resume, force
        )
        predict_bulk(file, output, maker, options, as_json)
        return
    requests = read_prompts(text, file, sys.stdin, model, max_tokens, parse_mapping(mapping))
    mope = MoPE.from_pretrained(source, backend=backend, threads=threads, overlay=overlay)
    if hardware is not None or prices is not None:
        made = make_forecaster(mope, hardware, prices, price_list, usd_per_gpu_hour, load)
        print_forecasts(requests, made, as_json)
        return
    forecasts = mope.predict(requests)
    if as_json:
        print_json([_plain(request.prompt, f) for request, f in zip(requests, forecasts, strict=True)])
    else:
        forecast_table(requests, forecasts)


def _plain(prompt: str, forecast: object) -> dict[str, object]:
    from dataclasses import asdict

    return {"prompt": prompt, **asdict(forecast)}  # type: ignore[call-overload]
