"""`mope push`: a bundle to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    repo: Annotated[str, typer.Argument(metavar="HUB_ID", help="owner/name; made where it is new.")],
    yes: Annotated[bool, typer.Option("--yes", help="Upload. Without it, only say what would be.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch; default: main.")] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Upload a bundle's files, after saying which; the token is HF_TOKEN's, or that of `hf auth login`."""
    from mope.cli.running import print_files, print_json
    from mope.errors import BundleError
    from mope.predictor import layout
    from mope.predictor.bundle import MoPE

    loaded = MoPE.from_pretrained(bundle)
    files = loaded.files
    if layout.CARD not in files:
        raise BundleError("a bundle without a model card", "README.md in it", f"run: mope card {bundle}")
    url = loaded.push_to_hub(repo, revision=revision, private=private, message=message) if yes else None
    if as_json:
        print_json(
            {"repo": repo, "revision": revision or "main", "files": files, "pushed": yes, "commit": url}
        )
        return
    print_files(files)
    typer.echo(f"pushed: {url}" if yes else f"nothing was sent; to upload to {repo}, say --yes")
