"""Adapters by name, versions that were tested, and the command that lists them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mope.cli import main
from mope.errors import ConfigError
from mope.serving_adapters import registry
from mope.serving_adapters.registry import ALLOW_VARIABLE, Adapter, check, find, get_adapter, in_range

ENGINE = Adapter("engine", "a test", "run it", ("mope-test-engine",), "0.27", "0.33")


@pytest.mark.parametrize("version", ["0.27", "0.27.0", "0.33.0", "0.33.9", "0.32.0+cpu", "0.33.0rc1"])
def test_tested_versions_fit(version: str) -> None:
    assert in_range(version, ENGINE)


@pytest.mark.parametrize("version", ["0.26.9", "0.34.0", "1.0", "0.3", "dev", ""])
def test_other_versions_do_not(version: str) -> None:
    assert not in_range(version, ENGINE)


def test_an_untested_version_is_refused_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_VARIABLE, raising=False)
    check(ENGINE, "0.30.1")
    with pytest.raises(ConfigError, match=r"engine 0\.34\.0.*0\.27 to 0\.33.*allow-untested"):
        check(ENGINE, "0.34.0")
    check(ENGINE, "0.34.0", allow_untested=True)
    monkeypatch.setenv(ALLOW_VARIABLE, "1")
    check(ENGINE, "0.34.0")
    with pytest.raises(ConfigError, match="not installed"):
        check(ENGINE, "")


def test_an_adapter_for_any_engine_always_fits() -> None:
    anything = Adapter("any", "a test", "run it")
    check(anything)
    assert find(anything).state == "ready"
    assert find(ENGINE).state == "not installed"


def test_names_are_ours_and_each_is_an_adapter() -> None:
    names = registry.adapter_names()
    assert set(registry.OURS) <= set(names)
    assert [get_adapter(name).name for name in registry.OURS] == list(registry.OURS)
    with pytest.raises(ConfigError, match=r"vlm.*vllm"):
        get_adapter("vlm")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is newer")
def test_the_package_registers_what_is_ours() -> None:
    import tomllib

    facts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert facts["project"]["entry-points"][registry.GROUP] == registry.OURS


@pytest.mark.parametrize("place", ["mope.nowhere:X", "mope.types:Nothing", "mope.types:Request"])
def test_a_broken_entry_is_named(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setitem(registry.OURS, "broken", place)
    with pytest.raises(ConfigError, match="broken"):
        get_adapter("broken")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["adapters", *words])
    return int(caught.value.code or 0)


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    rows = json.loads(capsys.readouterr().out)["adapters"]
    assert {row["name"] for row in rows} >= set(registry.OURS)
    assert run() == 0
    assert "vllm" in capsys.readouterr().out


def test_a_broken_adapter_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.OURS, "broken", "mope.nowhere:X")
    assert run("--json") == 0
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)["adapters"]}
    assert states["broken"].startswith("broken: ")
    assert states["vllm"] in ("not installed", "ready", "untested version")


def test_the_command_checks_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(ALLOW_VARIABLE, raising=False)
    monkeypatch.setattr(registry, "version", lambda name: "9.9")
    assert run("vllm") == 2
    assert "9.9" in capsys.readouterr().err
    assert run("vllm", "--allow-untested", "--json") == 0
    assert json.loads(capsys.readouterr().out)["adapters"][0]["fits"] is True
