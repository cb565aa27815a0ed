"""Hooking into SGLang: only when asked, only where everything is in its place, and never in the engine's way."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mope.serving_adapters import registry, sglang_adapter
from mope.serving_adapters.registry import find, get_adapter
from mope.serving_adapters.sglang_requests import ATTRIBUTES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


class Hooks:
    """What was registered."""

    found: list[tuple[str, Any, str]]

    @classmethod
    def register(cls, target: str, hook: Any, hook_type: str) -> None:
        cls.found.append((target, hook, hook_type))


class Policy:
    """SGLang's, as far as we touch it."""

    enable_priority_scheduling = False

    def calc_priority(
        self, waiting_queue: list[Any], running_batch: Any = None, processed_tokens: int = 0
    ) -> None:
        """First come, first served."""


class Req:
    def __init__(self, rid: str, routing_key: str | None = None) -> None:
        self.rid, self.routing_key, self.extra_key, self.lora_id, self.priority = (
            rid,
            routing_key,
            None,
            None,
            0,
        )
        self.origin_input_ids, self.output_ids = [0, 0], list[int]()
        self.sampling_params = SimpleNamespace(max_new_tokens=8, custom_params=None)
        self.time_stats = SimpleNamespace(forward_entry_time=0.0)
        self.is_retracted, self.finished_reason = False, None

    def finished(self) -> bool:
        return self.finished_reason is not None

    def reset_for_retract(self) -> None:
        """Not called here."""


class Manager:
    async def _tokenize_one_request(self, obj: Any) -> Any:
        """Not called here."""


def put(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Hooks]:
    """A double of SGLang 0.5.23 in place of the real one, and the variable that asks for us."""
    for name in ("sglang", "sglang.srt", "sglang.srt.managers", "sglang.srt.plugins"):
        put(monkeypatch, name)
    hooks = type("HookRegistry", (Hooks,), {"found": []})
    kinds = SimpleNamespace(AFTER="after", BEFORE="before")
    put(monkeypatch, "sglang.srt.plugins.hook_registry", HookRegistry=hooks, HookType=kinds)
    put(monkeypatch, "sglang.srt.managers.schedule_policy", SchedulePolicy=type("P", (Policy,), {}))
    put(monkeypatch, "sglang.srt.managers.schedule_batch", Req=type("R", (Req,), {}))
    put(monkeypatch, "sglang.srt.managers.tokenizer_manager", TokenizerManager=type("M", (Manager,), {}))
    monkeypatch.setattr(registry, "version", lambda name: "0.5.23")
    monkeypatch.setenv("MOPE_SGLANG", "1")
    for name in ("MOPE_EQUINOX", registry.ALLOW_VARIABLE, "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.delenv(name, raising=False)
    return hooks


def refusal() -> str:
    with pytest.raises(SystemExit) as found:
        sglang_adapter.register()
    return str(found.value)


@pytest.mark.parametrize("said", [None, "", "0", "false", "off", "no"])
def test_without_being_asked_it_touches_nothing(
    engine: type[Hooks], monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    monkeypatch.delenv("MOPE_SGLANG") if said is None else monkeypatch.setenv("MOPE_SGLANG", said)
    monkeypatch.setattr(registry, "version", lambda name: "9.9")
    monkeypatch.setenv("MOPE_EQUINOX", "{broken")
    sglang_adapter.register()
    assert engine.found == []


def test_asked_it_hooks_behind_the_engines_sort(engine: type[Hooks]) -> None:
    sglang_adapter.register()
    target = "sglang.srt.managers.schedule_policy.SchedulePolicy.calc_priority"
    assert engine.found == [(target, sglang_adapter.after_calc, "after")]


def test_a_predictor_hooks_into_the_front_end_too(
    engine: type[Hooks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOPE_EQUINOX", '{"predictor": "builtins:len"}')
    sglang_adapter.sglang_forecast.front_end.cache_clear()
    sglang_adapter.register()
    assert [target.rpartition(".")[2] for target, _, _ in engine.found] == [
        "calc_priority",
        "_tokenize_one_request",
    ]
    front_end = sglang_adapter.sglang_forecast.front_end()
    assert front_end is not None
    front_end.advice.close()
    sglang_adapter.sglang_forecast.front_end.cache_clear()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ('{"policy": "rpm:20"}', "rpm:20"),
        ('{"policy": "fairest"}', "fairest"),
        ('{"tenant_from": ["header"]}', "header"),
        ('{"polciy": "vtc"}', "polciy"),
        ('{"predictor": "no.such:thing"}', "no.such:thing"),
        ("{", "MOPE_EQUINOX"),
    ],
)
def test_a_wrong_setting_ends_the_start(
    engine: type[Hooks], monkeypatch: pytest.MonkeyPatch, settings: str, named: str
) -> None:
    monkeypatch.setenv("MOPE_EQUINOX", settings)
    said = refusal()
    assert named in said
    assert "Unset MOPE_SGLANG" in said
    assert engine.found == []


@pytest.mark.parametrize("version", ["0.5.22", "0.5.24", "0.6", "0.5.20"])
def test_another_version_ends_the_start(
    engine: type[Hooks], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(registry, "version", lambda name: version)
    assert "0.5.23" in refusal()
    monkeypatch.setenv(registry.ALLOW_VARIABLE, "1")
    sglang_adapter.register()
    assert len(engine.found) == 1


MOVED = {
    "no hooks": ("sglang.srt.plugins.hook_registry", None, {}),
    "no AFTER": ("sglang.srt.plugins.hook_registry", "HookType", SimpleNamespace(BEFORE="before")),
    "no policy": ("sglang.srt.managers.schedule_policy", "SchedulePolicy", None),
    "other arguments": (
        "sglang.srt.managers.schedule_policy",
        "SchedulePolicy",
        SimpleNamespace(calc_priority=lambda self, batch: None),
    ),
    "no sort": ("sglang.srt.managers.schedule_policy", "SchedulePolicy", object),
    "no retraction": ("sglang.srt.managers.schedule_batch", "Req", type("R", (), {"__init__": Req.__init__})),
}


@pytest.mark.parametrize("moved", MOVED)
def test_a_seam_that_moved_ends_the_start(
    engine: type[Hooks], monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    module, name, value = MOVED[moved]
    if name is None:
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    else:
        monkeypatch.setattr(sys.modules[module], name, value)
    said = refusal()
    assert "not the one the adapter knows" in said
    assert module in said or "calc_priority" in said or "reset_for_retract" in said


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_request_without_what_we_read_ends_the_start(
    engine: type[Hooks], monkeypatch: pytest.MonkeyPatch, attribute: str
) -> None:
    kept = "\n".join(f"    self.{name} = None" for name in ATTRIBUTES if name != attribute)
    space: dict[str, Any] = {}
    exec(f"def __init__(self):\n{kept}", space)
    other = type("Req", (Req,), {"__init__": space["__init__"]})
    monkeypatch.setattr(sys.modules["sglang.srt.managers.schedule_batch"], "Req", other)
    assert f"Req without {attribute}" in refusal()


def test_a_front_end_that_moved_matters_to_a_predictor_only(
    engine: type[Hooks], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = SimpleNamespace(_tokenize_one_request=lambda self, obj: None)
    monkeypatch.setattr(sys.modules["sglang.srt.managers.tokenizer_manager"], "TokenizerManager", manager)
    sglang_adapter.register()
    monkeypatch.setenv("MOPE_EQUINOX", '{"predictor": "builtins:len"}')
    assert "_tokenize_one_request(self, obj)" in refusal()


def test_each_scheduler_has_accounts_of_its_own(engine: type[Hooks]) -> None:
    first, second = Policy(), Policy()
    for policy in (first, second):
        waiting = [Req(f"a{i}", "a") for i in range(3)] + [Req("b0", "b")]
        assert sglang_adapter.after_calc("kept", policy, waiting, None, processed_tokens=5) == "kept"
        assert [req.rid for req in waiting] == ["a0", "b0", "a1", "a2"]
    assert vars(first)["mope_fair"] is not vars(second)["mope_fair"]


def test_priorities_are_kept_where_the_engine_sorts_by_them(engine: type[Hooks]) -> None:
    policy = Policy()
    policy.enable_priority_scheduling = True
    waiting = [Req("a0", "a"), Req("a1", "a"), Req("b0", "b")]
    waiting[2].priority = 1
    sglang_adapter.after_calc(None, policy, waiting)
    assert [req.rid for req in waiting] == ["a0", "a1", "b0"]


def test_what_goes_wrong_in_here_leaves_the_engines_order(engine: type[Hooks]) -> None:
    policy, waiting = Policy(), [Req("a0", "a"), Req("a1", "a"), Req("b0", "b")]
    del waiting[1].routing_key
    for _ in range(2):
        sglang_adapter.after_calc(None, policy, waiting)
        assert [req.rid for req in waiting] == ["a0", "a1", "b0"]
    assert vars(policy)["mope_fair"].order.controller.failures == {"sort": 2}


def test_it_is_listed_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = get_adapter("sglang")
    monkeypatch.setattr(registry, "version", lambda name: "0.5.23")
    assert find(adapter).fits
    assert adapter.use.startswith("MOPE_SGLANG=1 ")


def test_the_entry_point_names_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [place] = project["entry-points"]["sglang.srt.plugins"].values()
    module, _, name = place.partition(":")
    assert getattr(importlib.import_module(module), name) is sglang_adapter.register


def test_the_module_is_imported_without_an_engine() -> None:
    code = (
        "import sys, mope.serving_adapters.sglang_adapter; sys.exit(not {*sys.argv}.isdisjoint(sys.modules))"
    )
    banned = ["sglang", "torch", "numpy", "prometheus_client"]
    subprocess.run([sys.executable, "-c", code, *banned], check=True)
