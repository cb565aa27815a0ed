"""What a user types, turned into one call. Command NAME is the function NAME in `mope/cli/NAME.py`, with _ for -."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, NoReturn

import typer

import mope
from mope.errors import MopeError

# Name -> an example that `mope NAME --help` ends with. A command file imports only typer and the
# standard library at its top, so that building the whole table costs milliseconds.
COMMANDS = {
    "inspect": "mope inspect chats.jsonl",
    "train": "mope train chats.jsonl --output my-bundle --preset tiny",
    "evaluate": "mope evaluate my-bundle chats.jsonl --by source",
    "calibrate": "mope calibrate my-bundle log.jsonl --model my-model",
    "predict": "mope predict 'Write a haiku about autumn.'",
    "cost": "mope cost prompts.txt --prices gpt-4o-mini",
    "fit-profile": "mope fit-profile steps.csv --model llama-3.1-8b --gpu l40s --output mine.json",
    "simulate": "mope simulate vtc/overload --policy fcfs,vtc,equinox --seeds 3",
    "study": "mope study vtc",
    "bench": "mope bench predictor my-bundle --json",
    "adapters": "mope adapters --json",
    "serve": "mope serve --upstream http://localhost:8000 --gate slots=64",
    "export": "mope export my-bundle --to onnx",
    "card": "mope card my-bundle",
    "push": "mope push my-bundle owner/name",
    "pull": "mope pull owner/name --output my-bundle",
}


def build_app() -> typer.Typer:
    """The `mope` command with every command of the table."""
    app = typer.Typer(
        name="mope",
        help="Predict how long and how costly an LLM's answer will be, before it is generated.",
        epilog=f"\b\nStart with:\n  {COMMANDS['predict']}\nThe help of each command ends with an example.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=_root,
    )
    for name, example in COMMANDS.items():
        word = name.replace("-", "_")
        command = getattr(import_module(f"mope.cli.{word}"), word)
        app.command(name, epilog=f"\b\nExample:\n  {example}")(command)
    return app


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    try:
        build_app()(argv, prog_name="mope")
    except MopeError as error:
        _report(error)
        raise SystemExit(error.exit_code) from None
    raise SystemExit(0)


def _report(error: MopeError) -> None:
    """One message on stderr; wrapped by the terminal, not by us, so that it can be searched for."""
    from rich.console import Console
    from rich.text import Text

    message = Text.assemble(("error: ", "bold red"), str(error))
    Console(stderr=True, highlight=False).print(message, soft_wrap=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mope {mope.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass
