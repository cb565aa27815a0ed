"""Which words of the command line are a bundle and which the prompt, and prompts from files."""

from __future__ import annotations

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
    if first and Path(first).joinpath("config.json").is_file():
        raise PromptError(f"a bundle ({first}) without a prompt", "mope predict BUNDLE PROMPT, or --file")
    return None, first


def read_prompts(
    prompt: str | None,
    file: Path | None,
    stdin: TextIO,
    model: str | None = None,
    max_tokens: int | None = None,
) -> list[Request]:
    """One request for the prompt, or one for each prompt of the file ("-": lines of stdin)."""
    if prompt is not None:
        return [Request(prompt=prompt, model=model, max_tokens=max_tokens)]
    assert file is not None
    if str(file) == "-":
        return _lines(stdin.read(), "stdin", model, max_tokens)
    if file.suffix == ".txt":
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"file {str(file)!r} ({error.strerror})", "a readable file") from None
        except UnicodeDecodeError:
            raise DataError(f"file {str(file)!r} that is not UTF-8", "text, one prompt a line") from None
        return _lines(text, str(file), model, max_tokens)
    raise DataError(
        f"file {str(file)!r} of type {file.suffix or 'unknown'}",
        "a .txt file, one prompt a line",
        "or pipe it: --file -",
    )


def _lines(text: str, name: str, model: str | None, max_tokens: int | None) -> list[Request]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{name} without a prompt", "one prompt a line")
    return [Request(prompt=line, model=model, max_tokens=max_tokens) for line in lines]
