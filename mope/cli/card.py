"""`mope card`: a bundle's model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def card(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle folder; its card is README.md in it. Default: --facts.")
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(help="What a person wrote (TOML); default: words.toml in the bundle, if any."),
    ] = None,
    facts: Annotated[Path | None, typer.Option(help="A facts.json in the bundle's place.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the card goes instead.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Where its plot goes; default: beside the card.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where the card is stale.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Render a model card from facts.json and a words file: no number in it that is not in the facts."""
    from mope.cli.running import print_json
    from mope.errors import ConfigError, MopeError
    from mope.export.cards import Card, read_words

    if (bundle is None) == (facts is None):
        raise ConfigError("a bundle and --facts, or neither", "one of them")
    source = facts or _home(bundle) / "facts.json"
    target = output or source.with_name("README.md")
    own = source.with_name("words.toml")
    made = Card.of(source, read_words(words or (own if own.is_file() else None)), target, plot)
    stale = made.stale
    if not check:
        made.write()
    if as_json:
        print_json({"files": [str(path) for path in made.files], "stale": [str(path) for path in stale]})
    else:
        for path in made.files:
            typer.echo(
                f"{'stale' if path in stale and check else 'up to date' if check else 'written'}: {path}"
            )
    if check and stale:
        raise MopeError(f"stale card: {', '.join(map(str, stale))}; run mope card again")


def _home(bundle: Path | None) -> Path:
    from mope.errors import BundleError

    if bundle is None or not (bundle / "config.json").is_file():
        raise BundleError(f"{bundle}, which is no bundle folder", "a folder with config.json")
    return bundle
