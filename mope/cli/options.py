"""Options that several commands take, each with one name and one help."""

from __future__ import annotations

from typing import Annotated

import typer

Mapping = Annotated[
    list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="Name a column: prompt=question.")
]
Tokenizer = Annotated[str | None, typer.Option(help="The served model's tokenizer (file, folder or Hub id).")]
