"""Files of a bundle: nothing outside the folder is opened, and what is written is whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mope.errors import BundleError
from mope.files import whole, write_text
from mope.predictor import layout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    made = tmp_path / "bundle"
    (made / "experts").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "experts" / "short.safetensors").write_bytes(b"x")
    return made


@pytest.mark.parametrize("name", ["config.json", "experts/short.safetensors", "./config.json"])
def test_plain_files_below_the_folder_are_opened(name: str, folder: Path):
    assert layout.inside(folder, name) == folder / name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../secret", "inside the bundle"), ("experts/../../secret", "inside the bundle"), ("", "inside"),
        ("/etc/passwd", "inside the bundle"), ("none.json", "without none.json"), ("experts", "without experts"),
        ("x" * 5000, "without x"), ("a\0b", "without a"), ("\ud800", "without"), ("config.json/x", "without"),
    ],
)  # fmt: skip
def test_other_names_are_refused(name: str, words: str, folder: Path):
    with pytest.raises(BundleError, match=words):
        layout.inside(folder, name)


def test_links_out_of_the_folder_are_refused_and_links_inside_are_not(folder: Path):
    (folder / "out").symlink_to(folder.parent / "secret")
    (folder / "up").symlink_to(folder.parent)
    (folder / "in").symlink_to("config.json")
    (folder / "loop").symlink_to("loop")
    for name in ("out", "up/secret"):
        with pytest.raises(BundleError, match="leads outside"):
            layout.inside(folder, name)
    with pytest.raises(BundleError, match="without loop"):
        layout.inside(folder, "loop")
    assert layout.read_text(folder, "in") == "{}"


def test_a_snapshot_in_the_hubs_cache_may_link_to_its_blobs_alone(tmp_path: Path):
    snapshot, blobs = tmp_path / "models--o--n" / "snapshots" / "abc", tmp_path / "models--o--n" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1").write_text("{}")
    (tmp_path / "secret").write_text("secret")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    (snapshot / "facts.json").symlink_to("../../../secret")
    assert layout.read_text(snapshot, "config.json") == "{}"
    with pytest.raises(BundleError, match="leads outside"):
        layout.read_text(snapshot, "facts.json")


def test_a_file_that_is_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layout, "MAX_TEXT", 1)
    with pytest.raises(BundleError, match=r"config\.json of 2 bytes"):
        layout.read_text(folder, "config.json")
    with pytest.raises(BundleError, match=r"config\.json of 2 bytes"):
        layout.inside(folder, "config.json", 1)
    assert layout.inside(folder, "config.json", 2)


def test_what_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match=r"config\.json is not UTF-8"):
        layout.read_text(folder, "config.json")
    with pytest.raises(BundleError, match=r"short\.safetensors cannot be read"):
        layout.read_arrays(folder, "experts/short.safetensors")

    def locked(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", locked)
    monkeypatch.setattr(layout, "sha256", locked)
    monkeypatch.setattr(layout, "load_file", locked)
    readers = (
        lambda: layout.read_text(folder, "config.json"),
        lambda: layout.read_arrays(folder, "experts/short.safetensors"),
        lambda: layout.check_files(folder, {"config.json": ""}),
    )
    for read in readers:
        with pytest.raises(BundleError, match="Permission denied"):
            read()


def test_a_write_that_fails_leaves_the_old_file(folder: Path):
    def fails(partial: Path) -> None:
        partial.write_text("half a fi")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), whole(folder / "config.json") as partial:
        fails(partial)
    assert (folder / "config.json").read_text() == "{}"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "experts"]


def test_a_write_makes_its_folders_and_replaces_the_old_file(folder: Path):
    write_text(folder / "deep" / "er" / "a.txt", "é")
    write_text(folder / "config.json", "new")
    assert layout.read_text(folder, "deep/er/a.txt") == "é"
    assert layout.read_text(folder, "config.json") == "new"


def test_arrays_round_trip(folder: Path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.array([True])}
    layout.write_arrays(folder / "router.safetensors", arrays)
    read = layout.read_arrays(folder, "router.safetensors")
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())


def test_hashes_tell_a_changed_file(folder: Path):
    hashes = {"config.json": layout.sha256(folder / "config.json")}
    assert hashes["config.json"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert layout._sha256(folder / "config.json") == hashes["config.json"]
    layout.check_files(folder, hashes)
    (folder / "config.json").write_text("{ }")
    with pytest.raises(BundleError, match=r"config\.json was changed"):
        layout.check_files(folder, hashes)
