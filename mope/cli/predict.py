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
    backend: Annotated[str, typer.Option(help="auto, onnx-int8, onnx or torch.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Forecast how many tokens the answer to a prompt will have.

    Without a bundle, the one that ships with mope answers. The range is the calibrated 80 % interval.
    """
    from mope.cli.prompts import read_prompts, split_arguments
    from mope.cli.running import forecast_table, print_json
    from mope.predictor.bundle import MoPE

    source, text = split_arguments(bundle, prompt, file is not None)
    requests = read_prompts(text, file, sys.stdin, model, max_tokens)
    mope = MoPE.from_pretrained(source, backend=backend, threads=threads)
    forecasts = mope.predict(requests)
    if as_json:
        print_json([_plain(request.prompt, f) for request, f in zip(requests, forecasts, strict=True)])
    else:
        forecast_table(requests, forecasts)


def _plain(prompt: str, forecast: object) -> dict[str, object]:
    from dataclasses import asdict

    return {"prompt": prompt, **asdict(forecast)}  # type: ignore[call-overload]
