"""Settings of adapters: from JSON, from files, refused with one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from mope.errors import ConfigError
from mope.serving_adapters.settings import VARIABLE, Settings


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> object:
    def read(text: str) -> Settings:
        monkeypatch.setenv(VARIABLE, text)
        return Settings.from_environment()

    return read


def test_nothing_set_gives_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Settings.from_environment() == Settings()


def test_json_in_the_variable(read) -> None:  # type: ignore[no-untyped-def]
    found = read(
        '{"policy": "vtc:forecast", "weights": {"gold": 2}, "tenant_from": ["lora"], "priors": {"tokens": 99}}'
    )
    assert (found.policy, found.weights, found.tenant_from) == ("vtc:forecast", {"gold": 2}, ("lora",))
    assert (found.priors.tokens, found.priors.spare, found.clock) == (99.0, 1.5, "wall")


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", '{"deadline_ms": 5}'), ("a.toml", 'deadline_ms = 5\n[groups]\nk2 = "k"\n')],
)
def test_files(read, tmp_path: Path, name: str, text: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / name
    path.write_text(text)
    assert read(str(path)).deadline_ms == 5.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"polcy": "vtc"}', "polcy.*policy"),
        ('{"policy": "vtcc"}', "vtcc"),
        ('{"policy": {}}', "policy"),
        ('{"weights": {"a": 0}}', "weight 0"),
        ('{"weights": {"a": true}}', "weights.a"),
        ('{"weights": 3}', "a table"),
        ('{"groups": {"a": 1}}', "groups.a"),
        ('{"deadline_ms": 0}', "deadline_ms"),
        ('{"deadline_ms": NaN}', "deadline_ms"),
        ('{"max_tenants": 0}', "max_tenants"),
        ('{"clock": "sun"}', "clock"),
        ('{"tenant_from": 3}', "tenant_from"),
        ('{"priors": {"tokens": -1}}', "tokens"),
        ("{nonsense", "JSON"),
        ("no/such.toml", "no/such.toml"),
        ("words", "JSON in braces"),
    ],
)
def test_what_is_wrong_is_named_with_the_variable(read, text: str, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=f"(?s){VARIABLE}.*{said}"):
        read(text)
