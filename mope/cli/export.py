"""`mope export`: a bundle's networks as ONNX."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(str, Enum):
    """What a bundle can be exported to."""

    onnx = "onnx"


def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder with PyTorch weights.")],
    to: Annotated[Format, typer.Option(help="The format.")] = Format.onnx,
    int8: Annotated[bool, typer.Option("--int8", help="Also write int8 graphs.")] = False,
    compact: Annotated[
        Path | None, typer.Option(help="Also write a bundle that only predicts (int8 graphs) here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write ONNX graphs into the bundle, each checked against PyTorch on the same prompts first."""
    from dataclasses import asdict, replace

    from mope.extras import require

    require("export", "exporting")
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from mope.cli.running import print_json
    from mope.errors import ConfigError
    from mope.export.onnx_export import PROBES, export_onnx
    from mope.export.onnx_export import compact as write_compact
    from mope.predictor import layout
    from mope.predictor.bundle import MoPE, with_hashes
    from mope.types import Request

    if compact is not None and not int8:
        raise ConfigError("--compact without --int8", "both", "add --int8")
    if compact is not None and compact.exists() and not compact.is_dir():
        raise ConfigError(f"--compact {compact}, which is a file", "a folder, or a new name")
    loaded = MoPE.from_pretrained(bundle, backend="torch")
    inputs = loaded.inputs([Request(prompt=text) for text in PROBES])
    parity = export_onnx(loaded, bundle, inputs.batch(np.arange(len(inputs))), int8=int8)
    loaded.config = with_hashes(replace(loaded.config), bundle)
    layout.write_text(bundle / layout.CONFIG, loaded.config.to_json())
    if compact is not None:
        write_compact(loaded, compact)
    if as_json:
        print_json([asdict(row) for row in parity])
        return
    table = Table("network", "type", "largest difference", "mean", "bytes", box=None)
    for row in parity:
        kind = "int8" if row.int8 else "fp32"
        table.add_row(row.network, kind, f"{row.largest:.1e}", f"{row.mean:.1e}", f"{row.bytes:,}")
    Console().print(table)
