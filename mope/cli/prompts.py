"""Which words of the command line are a bundle and which the prompt, and prompts from files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from mope.errors import DataError, PromptError
from mope.types import Request


def split_arguments(first: str, second: str | None, from_file: bool) -> tuple[str | None, str | None]:
    """(bundle or None for the one that ships, prompt or None where a file is given)."""
    if second is not None:
        if from_file:
            raise PromptError("a prompt and --file", "one of them")
        return first, second
    if from_file:
        return first or None, None
    # A long prompt is no file name: `os.path` says no where `Path` raises.
    if first and os.path.isfile(os.path.join(first, "config.json")):
        raise PromptError(f"a bundle ({first}) without a prompt", "mope predict BUNDLE PROMPT, or --file")
    return None, first


def read_prompts(
    prompt: str | None,
    file: Path | None,
    stdin: TextIO,
    model: str | None = None,
    max_tokens: int | None = None,
    mapping: Mapping[str, str] | None = None,
) -> list[Request]:
    """One request for the prompt, or one for each prompt of the file ("-": lines of stdin)."""
    if prompt is not None:
        return [Request(prompt=prompt, model=model, max_tokens=max_tokens)]
    assert file is not None
    if str(file) == "-" or file.suffix == ".txt":
        name = "stdin" if str(file) == "-" else f"file {str(file)!r}"
        try:
            text = stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"{name} ({error.strerror})", "a readable file") from None
        except UnicodeDecodeError:
            raise DataError(f"{name} that is not UTF-8", "text, one prompt a line") from None
        return _lines(text, name, model, max_tokens)
    return _rows(file, model, max_tokens, mapping)


def _rows(
    file: Path, model: str | None, max_tokens: int | None, mapping: Mapping[str, str] | None
) -> list[Request]:
    """One request for each row of a table with a `messages` or `prompt` column; every row must be usable."""
    from mope.data.prompts import prompt_request, prompt_shape
    from mope.data.readers import SUFFIXES, open_table, suffix_of
    from mope.data.values import Refused

    if not suffix_of(file):
        raise DataError(
            f"file {str(file)!r}", f"prompts one a line in .txt, or rows in {', '.join(SUFFIXES)}"
        )
    table, refused = open_table(file), Counter[str]()
    shape = prompt_shape(table.columns, str(file), mapping)
    found: list[Request] = []
    for row in table.rows(shape.columns, refused):
        try:
            found.append(prompt_request(row, shape, model, max_tokens))
        except Refused as error:
            raise DataError(
                f"{file}, row {len(found) + 1}: {error}", "a prompt or a chat in every row"
            ) from None
    if refused:
        raise DataError(
            f"{file}: {', '.join(f'{n} x {why}' for why, n in refused.items())}", "an object in every row"
        )
    return found


def _lines(text: str, name: str, model: str | None, max_tokens: int | None) -> list[Request]:
    # Not `splitlines`: that also cuts at form feeds and Unicode's line separators, which prompts may hold.
    lines = [line for line in text.removeprefix("\ufeff").split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{name} without a prompt", "one prompt a line")
    return [Request(prompt=line, model=model, max_tokens=max_tokens) for line in lines]
