"""Bundles and the Hugging Face Hub: a local folder from a folder or Hub id, and files from here to there.

The token is huggingface_hub's own business: HF_TOKEN or `hf auth login`. It is never taken as an argument, so it
stands in no command line, log or message of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mope.errors import BundleError, HubError, MopeError

# What a bundle consists of. Nothing else of a repository is fetched: no code, no pickles.
WANTED = (
    *("config.json", "calibration.json", "tokenizer.json", "facts.json", "README.md", "*.safetensors"),
    *("onnx/*.onnx", "onnx/*.onnx.data"),  # a star stands for folders, too
)
MAX_FILE, MAX_TOTAL = 4 << 30, 16 << 30


def local_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder that `source` names, fetched from the Hub where it is an id `owner/name`.

    Raises `BundleError` for what is neither, or cannot be had; `HubError` where the Hub fails.
    """
    # `os.path` answers no where `Path` raises: on a name that is too long or holds NUL.
    if os.path.isdir(source):
        return Path(source)
    if os.path.exists(source) or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise BundleError(
            f"bundle {str(source)[:200]!r}", "a bundle folder, or a Hub id owner/name", "check the path"
        )
    return fetch(str(source), revision)


def fetch(repo: str, revision: str | None = None, output: Path | None = None, *, force: bool = False) -> Path:
    """The files of a bundle from the Hub: in its cache, or as plain files in `output`. Errors as `local_folder`.

    A broken download goes on where it stopped; `force` takes everything anew. Offline (HF_HUB_OFFLINE=1), or where
    the Hub cannot be reached, the cache answers.
    """
    from huggingface_hub import snapshot_download

    with _said(repo, revision):
        _check_sizes(repo, revision)
        folder = snapshot_download(
            repo, revision=revision, local_dir=output, allow_patterns=list(WANTED), force_download=force
        )
    return Path(folder)


def upload(
    folder: Path, repo: str, names: Sequence[str], *, revision: str | None, private: bool, message: str
) -> str:
    """One commit that adds the files `names` of `folder` to `repo`, made where it is new; returns its address.

    Raises `BundleError` where the Hub refuses, `HubError` where it fails.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    with _said(repo, revision):
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names]
        done = api.create_commit(repo, added, commit_message=message, revision=revision)
    return str(done.commit_url)


def _check_sizes(repo: str, revision: str | None) -> None:
    """Refuse a repository that would fill the disk, before anything of it is fetched."""
    from huggingface_hub import HfApi, constants, errors
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        return
    try:
        entries = list(HfApi().list_repo_tree(repo, revision=revision, recursive=True))
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        if _status(error) is None:  # no answer at all: the cache may have one
            return
        raise
    sizes = {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
    wanted = [sizes[name] for name in filter_repo_objects(sizes, allow_patterns=list(WANTED))]
    if max(wanted, default=0) > MAX_FILE or sum(wanted) > MAX_TOTAL:
        raise BundleError(
            f"bundle {repo!r} of {sum(wanted):,} bytes, the largest file {max(wanted):,}",
            f"at most {MAX_TOTAL:,} and {MAX_FILE:,}",
        )


@contextmanager
def _said(repo: str, revision: str | None) -> Iterator[None]:
    """What huggingface_hub raises, in our words. Its own messages may hold addresses and ids, never the token."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError:
        raise _refused(repo, "it is gated", "ask for access on its page, then set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise _refused(
            repo, "no such repository, or a private one", "check the name; set HF_TOKEN for a private one"
        ) from None
    except errors.RevisionNotFoundError:
        raise _refused(repo, f"no revision {revision!r}", "name a branch, tag or commit of it") from None
    except errors.HFValidationError:
        raise _refused(repo, "nothing: that is no id", "write owner/name") from None
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            todo = "fetch it once without HF_HUB_OFFLINE"
            raise _refused(repo, "nothing: offline, and it is not in the cache", todo) from None
        raise _failed(repo, error) from None
    # ValueError: an answer that is no JSON.
    except (errors.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]
        raise _failed(repo, error) from None


def _failed(repo: str, error: Exception) -> MopeError:
    status = _status(error)
    if status in (401, 403):
        return _refused(repo, f"{status}: the token is missing, wrong or may not do this", "set HF_TOKEN")
    if status is not None and 400 <= status < 500 and status != 429:
        return _refused(repo, str(status), "check the name and your rights")
    words = f"{status}" if status else type(error).__name__
    return HubError(f"bundle {repo!r}: the Hub gave {words}; try again later, what was fetched is kept")


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error: of its answer, or of what it was raised from."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _refused(repo: str, why: str, todo: str) -> BundleError:
    return BundleError(
        f"bundle {repo!r}: the Hub gave {why}", "a bundle folder, or a Hub id that can be reached", todo
    )
