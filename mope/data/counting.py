"""How many tokens a text has: by a tokenizer where one is given, else by rule of thumb."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from mope.chat import estimate_tokens
from mope.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HUB_ID = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?")


@dataclass(frozen=True)
class TokenCount:
    """Counts tokens, special ones left out. Without a tokenizer the counts are estimates."""

    tokenizer: Tokenizer | None = None

    @property
    def exact(self) -> bool:
        """Whether a tokenizer counts."""
        return self.tokenizer is not None

    def __call__(self, text: str) -> int:
        if self.tokenizer is None:
            return estimate_tokens(text)
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)


def token_count(name: str | None) -> TokenCount:
    """The counter for a tokenizer file, a folder with tokenizer.json or a Hub id; None estimates.

    Raises `DataError` where it cannot be read and `MissingExtra` where `tokenizers` is not installed.
    """
    if name is None:
        return TokenCount()
    try:
        from tokenizers import Tokenizer
    except ImportError as cause:
        raise MissingExtra(
            "counting tokens needs tokenizers; install with: pip install tokenizers"
        ) from cause
    path = _locate(name)
    with _PlainExceptions(name):
        tokenizer = Tokenizer.from_file(path)
        # A limit stored with the tokenizer, 512 for BERT, would cap every count.
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return TokenCount(tokenizer)


def _locate(name: str) -> str:
    """The path of tokenizer.json for `name`, fetched from the Hub where it is no local path."""
    if os.path.exists(name):
        path = os.path.join(name, "tokenizer.json") if os.path.isdir(name) else name
        if os.path.isfile(path):
            return path
    elif HUB_ID.fullmatch(name):
        return _download(name)
    raise _unreadable(name)


def _download(name: str) -> str:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as cause:
        raise MissingExtra(
            "a tokenizer from the Hub needs huggingface_hub; install with: pip install huggingface_hub"
        ) from cause
    try:
        return str(hf_hub_download(name, "tokenizer.json"))
    except (OSError, ValueError) as cause:
        raise _unreadable(name) from cause


def _unreadable(name: str) -> DataError:
    return DataError(
        f"tokenizer {name!r} that cannot be read",
        "a tokenizer.json, a folder that holds one, or a Hub id",
        "check the name and the connection, or leave the tokenizer out",
    )


@dataclass
class _PlainExceptions:
    """`tokenizers` raises plain `Exception` for a broken file: those, and no subclass, are ours to word."""

    name: str

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, cause: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is Exception:
            raise _unreadable(self.name) from cause
