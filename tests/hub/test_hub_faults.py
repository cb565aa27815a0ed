"""Downloads over real HTTP, and everything that can go wrong with them."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path

import pytest
from hub_server import TOKEN, Fault, Hub

from mope import hub as ours
from mope.errors import BundleError, HubError
from mope.hub import fetch
from mope.predictor.bundle import MoPE

FILES = {"config.json": b'{"format": 1}', "router.safetensors": bytes(range(256)) * 40}
BLOB = "GET .*/resolve/.*/router.safetensors"


def kept(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_only_what_a_bundle_consists_of_is_fetched(hub: Hub):
    other = {
        "model.pkl": b"",
        "pytorch_model.bin": b"",
        "modeling.py": b"",
        "onnx/a.exe": b"",
    }
    hub.put("owner/name", {**FILES, "onnx/int8/short.onnx": b"x", "experts/short.safetensors": b"y", **other})
    assert set(kept(fetch("owner/name"))) == {*FILES, "onnx/int8/short.onnx", "experts/short.safetensors"}
    assert not [line for line in hub.log if "model" in line.split("/")[-1]]


def test_the_second_time_nothing_is_fetched(hub: Hub):
    hub.put("owner/name", FILES)
    first = fetch("owner/name")
    hub.log.clear()
    assert fetch("owner/name") == first
    assert not [line for line in hub.log if "resolve" in line]


def test_a_revision_is_pinned(hub: Hub):
    old = hub.put("owner/name", FILES)
    hub.put("owner/name", {**FILES, "config.json": b"new"})
    hub.put("owner/name", {**FILES, "config.json": b"branch"}, "next")
    found = {
        revision: (fetch("owner/name", revision) / "config.json").read_bytes()
        for revision in (old, None, "next")
    }
    assert found == {old: FILES["config.json"], None: b"new", "next": b"branch"}


def test_into_a_folder_of_ones_own(hub: Hub, tmp_path: Path):
    hub.put("owner/name", FILES)
    folder = fetch("owner/name", output=tmp_path / "mine")
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert not any((folder / name).is_symlink() for name in FILES)


def test_offline_the_cache_answers(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    hub.put("owner/name", FILES)
    first = fetch("owner/name")
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("owner/name") == first
    assert hub.log == []
    with pytest.raises(BundleError, match="offline, and it is not in the cache"):
        fetch("owner/other")


def test_without_a_network_the_cache_answers(hub: Hub):
    hub.put("owner/name", FILES)
    first = fetch("owner/name")
    hub.stop()
    assert fetch("owner/name") == first
    with pytest.raises(HubError, match="try again later"):
        fetch("owner/other")


@pytest.mark.parametrize(
    ("place", "kind", "error", "words"),
    [
        ("tree", 401, BundleError, "set HF_TOKEN"),
        ("tree", 403, BundleError, "set HF_TOKEN"),
        ("tree", 404, BundleError, "the Hub gave 404"),
        ("tree", 429, HubError, "gave 429"),
        ("tree", 500, HubError, "gave 500"),
        ("tree", "cut", HubError, "try again later"),
        ("tree", "short", HubError, "try again later"),
        ("HEAD .*router", 429, HubError, "gave 429"),
        ("HEAD .*router", 500, HubError, "gave 500"),
        (BLOB, 401, BundleError, "set HF_TOKEN"),
        (BLOB, 404, BundleError, "the Hub gave 404"),
        (BLOB, 429, HubError, "gave 429"),
        (BLOB, 500, HubError, "gave 500"),
        (BLOB, "cut", HubError, "what was fetched is kept"),
        (BLOB, "short", HubError, "what was fetched is kept"),
    ],
)
def test_a_hub_that_fails(place: str, kind: int | str, error: type[Exception], words: str, hub: Hub):
    """Told in our words; and when the fault is over, the same call ends well."""
    hub.put("owner/name", FILES)
    hub.faults = [Fault(place, kind)]
    with pytest.raises(error, match=words) as caught:
        fetch("owner/name")
    assert type(caught.value) is error
    assert caught.value.__cause__ is None
    hub.faults = []
    assert kept(fetch("owner/name")) == FILES


@pytest.mark.parametrize(
    ("place", "kind"), [("tree", 500), ("tree", 429), ("tree", "cut"), (BLOB, 429), (BLOB, "cut")]
)
def test_a_fault_that_passes_is_not_seen(place: str, kind: int | str, hub: Hub):
    hub.put("owner/name", FILES)
    hub.faults = [Fault(place, kind, times=1)]
    assert kept(fetch("owner/name")) == FILES


def test_a_broken_download_goes_on_where_it_stopped(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    hub.put("owner/name", FILES)
    hub.faults = [Fault(BLOB, "cut", times=2)]
    assert kept(fetch("owner/name")) == FILES
    ranges = [line.split("bytes=")[1] for line in hub.log if "GET" in line and "bytes=" in line]
    assert len(ranges) == 2
    assert 0 < int(ranges[0][:-1]) < int(ranges[1][:-1]) < len(FILES["router.safetensors"])


def test_no_such_thing(hub: Hub):
    with pytest.raises(BundleError, match="no such repository, or a private one"):
        fetch("owner/name")
    hub.put("owner/name", FILES)
    with pytest.raises(BundleError, match="no revision 'v9'"):
        fetch("owner/name", "v9")


def test_a_private_repository_needs_the_token_and_nobody_prints_it(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    caplog.set_level(logging.DEBUG)
    hub.put("owner/name", FILES)
    hub.private.add("owner/name")
    with pytest.raises(BundleError, match="set HF_TOKEN for a private one"):
        fetch("owner/name")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert kept(fetch("owner/name")) == FILES
    assert hub.tokens == {TOKEN}
    hub.faults = [Fault("tree", 401)]
    with pytest.raises(BundleError) as caught:
        fetch("owner/name")
    said = [caplog.text, *capfd.readouterr(), str(caught.value)]
    assert not [text for text in said if TOKEN in text]


def test_a_repository_that_would_fill_the_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.put("owner/name", FILES)
    monkeypatch.setattr(ours, "MAX_FILE", 10_000)
    with pytest.raises(BundleError, match=r"10,253 bytes, the largest file 10,240.*at most"):
        fetch("owner/name")
    assert not [line for line in hub.log if "resolve" in line]


def test_a_file_with_another_content_is_refused(hub: Hub, exported: tuple[Path, Path]):
    """The size is right, so only the hash in config.json tells; taken anew, the bundle is whole."""
    hub.put("owner/tiny", kept(exported[1]))
    hub.faults = [Fault("GET .*/resolve/.*/onnx/int8/short.onnx", "wrong", times=1)]
    with pytest.raises(BundleError, match=r"short.onnx was changed or cut short \(its hash differs\)"):
        MoPE.from_pretrained("owner/tiny")
    folder = fetch("owner/tiny", force=True)
    assert MoPE.from_pretrained("owner/tiny").folder == folder
    expected = MoPE.from_pretrained(exported[1]).predict("Explain the weather")
    assert MoPE.from_pretrained("owner/tiny").predict("Explain the weather") == expected


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/evil.safetensors", "experts/../../evil.safetensors"]
)
def test_a_name_that_leads_out_writes_nothing(name: str, hub: Hub, tmp_path: Path):
    hub.put("owner/name", {**FILES, name: b"evil"})
    with suppress(BundleError, HubError):
        fetch("owner/name", output=tmp_path / "a" / "b")
    assert b"evil" not in [path.read_bytes() for path in tmp_path.rglob("evil*") if path.is_file()]
    assert not Path("/etc/evil.safetensors").exists()


def test_links_of_a_config_are_no_way_out(hub: Hub, exported: tuple[Path, Path]):
    files = kept(exported[1])
    config = json.loads(files["config.json"])
    config["files"]["../../secret"] = "0" * 64
    hub.put("owner/tiny", {**files, "config.json": json.dumps(config).encode()})
    with pytest.raises(BundleError, match="a path inside the bundle"):
        MoPE.from_pretrained("owner/tiny")
