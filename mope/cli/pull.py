"""`mope pull`: a bundle from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pull(
    repo: Annotated[str, typer.Argument(metavar="HUB_ID", help="owner/name.")],
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit; default: main.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="A folder for plain files; default: the Hub's cache.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take everything anew, for a damaged cache.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Download a bundle and check it: hashes, shapes, that it opens. A broken download goes on where it stopped."""
    from mope.cli.running import print_files, print_json
    from mope.hub import fetch
    from mope.predictor.bundle import MoPE

    loaded = MoPE.from_pretrained(fetch(repo, revision, output, force=force))
    if as_json:
        print_json({"repo": repo, "folder": str(loaded.folder), "files": loaded.files})
        return
    print_files(loaded.files)
    typer.echo(str(loaded.folder))
