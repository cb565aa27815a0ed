"""Where a bundle is: a folder, or a Hub id that is looked up in the cache; anything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mope.errors import BundleError
from mope.hub import local_folder

REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_a_folder_is_itself(tmp_path: Path):
    assert local_folder(tmp_path) == tmp_path
    assert local_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    "source",
    ["no-such-folder", "./none", "/none/here", "a/b/c", "~/bundle", "x" * 5000, "word " * 100, "a\0b"],
)
def test_what_is_neither_folder_nor_id(source: str):
    with pytest.raises(BundleError, match="check the path"):
        local_folder(source)


def test_a_file_is_no_bundle(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="check the path"):
        local_folder(tmp_path / "file")


@pytest.mark.parametrize("source", ["owner/never-fetched", "owner/?", "-/-", "a\0/b"])
def test_an_id_that_cannot_be_fetched(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_cache(tmp_path, monkeypatch)
    with pytest.raises(BundleError, match="the Hub gave"):
        local_folder(source)


def test_a_fetched_id_is_found_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_cache(tmp_path, monkeypatch)
    home = tmp_path / "models--owner--name"
    snapshot = home / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(REVISION)
    assert local_folder("owner/name") == snapshot
    assert local_folder("owner/name", revision=REVISION) == snapshot


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, and with a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
