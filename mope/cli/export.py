"""`mope export`: a bundle's networks as ONNX, or as models of `transformers`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mope.predictor.bundle import MoPE


MOST_CALIBRATION = 512  # prompts: means of ranges move little beyond


class Format(str, Enum):
    """What a bundle can be exported to."""

    onnx = "onnx"
    transformers = "transformers"


class Scheme(str, Enum):
    """How int8 graphs meet activations."""

    dynamic = "dynamic"
    rows = "rows"
    static = "static"
    weights = "weights"
    blocks = "blocks"


class Routing(str, Enum):
    """How the one-file graph answers."""

    soft = "soft"
    hard = "hard"


def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder with PyTorch weights.")],
    to: Annotated[Format, typer.Option(help="The format.")] = Format.onnx,
    int8: Annotated[bool, typer.Option("--int8", help="Also write int8 graphs.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also write fp16 graphs, for GPUs.")] = False,
    scheme: Annotated[Scheme, typer.Option(help="Activations of int8 graphs.")] = Scheme.dynamic,
    calibration: Annotated[
        list[str] | None, typer.Option(help="Prompts (data files) that fix the scales of --scheme static.")
    ] = None,
    routed: Annotated[
        bool,
        typer.Option("--routed", help="Also write one graph that holds all and routes: onnx/routed.onnx."),
    ] = False,
    routing: Annotated[Routing | None, typer.Option(help="Of that graph; default: the bundle's.")] = None,
    compact: Annotated[
        Path | None, typer.Option(help="Also write a bundle that only predicts (int8 graphs) here.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of --to transformers; default: transformers/ in the bundle.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write graphs into the bundle, each checked against PyTorch on the same real prompts first."""
    from mope.cli.running import print_json
    from mope.errors import ConfigError
    from mope.extras import require
    from mope.predictor.bundle import MoPE

    require("export" if to is Format.onnx else "transformers", "exporting")
    if compact is not None and not int8:
        raise ConfigError("--compact without --int8", "both", "add --int8")
    if compact is not None and compact.exists() and not compact.is_dir():
        raise ConfigError(f"--compact {compact}, which is a file", "a folder, or a new name")
    loaded = MoPE.from_pretrained(bundle, backend="torch")
    if to is Format.transformers:
        _transformers(loaded, output or bundle / "transformers", as_json)
        return
    from mope.export.onnx_export import Plan, export_onnx
    from mope.export.onnx_export import compact as write_compact

    plan = Plan(fp16, int8, scheme.value, routed, routing.value if routing else "")
    facts = export_onnx(loaded, bundle, plan, _requests(calibration))
    if compact is not None:
        write_compact(loaded, compact)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _requests(data: list[str] | None) -> Any:
    from mope.data.load import read_examples

    return read_examples(data, limit=MOST_CALIBRATION).requests if data else None


def _transformers(loaded: MoPE, folder: Path, as_json: bool) -> None:
    from mope.cli.running import print_json
    from mope.export.plain import save_experts

    written = save_experts(loaded, folder)
    if as_json:
        print_json({name: str(path) for name, path in written.items()})
        return
    for name, path in written.items():
        typer.echo(f"{name}: AutoModel.from_pretrained({str(path)!r})")


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("network", "type", "largest difference", "mean", "bytes", box=None)
    for row in facts["networks"]:
        sizes = f"{row['largest']:.1e}", f"{row['mean']:.1e}", f"{row['bytes']:,}"
        table.add_row(row["network"], row["kind"], *sizes)
    tokens = Table("forecasts by", "type", "largest difference, tokens", "mean", "mean share", box=None)
    for row in facts["forecasts"]:
        sizes = (
            f"{row['largest_tokens']:.2f}",
            f"{row['mean_tokens']:.3f}",
            f"{100 * row['mean_share']:.2f} %",
        )
        tokens.add_row(row["graphs"], row["kind"], *sizes)
    console = Console()
    console.print(table)
    console.print(tokens)
