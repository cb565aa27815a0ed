"""A local folder from a local folder or a Hub id (the read side)."""

from __future__ import annotations

import os
from pathlib import Path

from mope.errors import BundleError


def local_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder that `source` names, fetched from the Hub where it is an id `owner/name`."""
    # `os.path` answers no where `Path` raises: on a name that is too long or holds NUL.
    if os.path.isdir(source):
        return Path(source)
    if os.path.exists(source) or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise BundleError(
            f"bundle {str(source)[:200]!r}", "a bundle folder, or a Hub id owner/name", "check the path"
        )
    return _download(str(source), revision)


def _download(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BundleError(
            f"bundle {source!r}: no such folder, and the Hub gave {type(error).__name__}",
            "a bundle folder, or a Hub id that can be reached",
        ) from None
