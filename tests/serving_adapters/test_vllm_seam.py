"""What the adapter holds on to in vLLM: found where it is, named where it is not; the plug-in; the counters."""

from __future__ import annotations

import ast
import sys
from types import ModuleType
from typing import Any

import pytest

from mope.errors import ConfigError
from mope.serving_adapters import vllm_seam
from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.vllm_plugin import VARIABLE, register
from mope.serving_adapters.vllm_seam import SEAM, check_seam, missing_in_sources


def sources() -> dict[str, str]:
    """Files that have all of the seam and nothing else."""
    found = {}
    for name, classes in SEAM.items():
        lines = []
        for owner, words in classes.items():
            names = words.split()
            if not owner:
                lines += [f"def {one}(): ..." for one in names]
                continue
            own = [one.removeprefix("self.") for one in names if one.startswith("self.")]
            lines += [f"class {owner}:", "    here = 1", "    def __init__(self):", "        self.own = 1"]
            lines += [f"        self.{one} = 1" for one in own]
            lines += [f"    def {one}(self): ..." for one in names if not one.startswith("self.")]
        found[name] = "\n".join(lines)
        ast.parse(found[name])
    return found


def test_the_whole_seam_is_found() -> None:
    assert missing_in_sources(sources()) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("scheduler.py", "def update_from_output", "def update", "Scheduler.update_from_output"),
        ("scheduler.py", "self.waiting", "self.queue", "Scheduler.waiting"),
        ("output.py", "class NewRequestData", "class NewRequest", "NewRequestData"),
        ("request_queue.py", "def create_request_queue", "def make_queue", "create_request_queue"),
        ("v1/request.py", "self.cache_salt", "self.salt", "Request.cache_salt"),
    ],
)
def test_what_moved_is_named(file: str, old: str, new: str, said: str) -> None:
    found = sources()
    name = next(one for one in found if one.endswith(file) and old in found[one])
    found[name] = found[name].replace(old, new)
    assert missing_in_sources(found) == [said]


def test_a_file_that_is_gone_and_a_method_that_is_new_are_named() -> None:
    found = sources()
    queue = "vllm/v1/core/sched/request_queue.py"
    found[queue] += "\nclass Other: ...\n"
    found[queue] = found[queue].replace(
        "class RequestQueue:", "class RequestQueue:\n    @abstractmethod\n    def rotate(self): ..."
    )
    del found["vllm/v1/request.py"]
    assert missing_in_sources(found) == ["vllm/v1/request.py", "a queue without rotate"]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType("vllm")
    module.__version__ = "0.32.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.delenv("MOPE_ALLOW_UNTESTED", raising=False)
    monkeypatch.setattr(vllm_seam, "_installed_sources", sources)
    return module


def test_an_engine_starts_with_what_was_tested_only(vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_seam()
    vllm.__version__ = "0.41.0"
    with pytest.raises(ConfigError, match=r"vllm 0\.41\.0.*0\.27 to 0\.33"):
        check_seam()
    monkeypatch.setenv("MOPE_ALLOW_UNTESTED", "1")
    check_seam()
    monkeypatch.setattr(vllm_seam, "_installed_sources", dict)
    with pytest.raises(ConfigError, match=r"has no vllm/v1"):
        check_seam()


def test_the_plug_in_does_nothing_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class SchedulerConfig:
        def __init__(self, scheduler_cls: object = None) -> None:
            self.scheduler_cls = scheduler_cls

        def get_scheduler_cls(self) -> object:
            return self.scheduler_cls or "vLLM's"

    module = ModuleType("vllm.config.scheduler")
    module.SchedulerConfig = SchedulerConfig  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.config"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.config.scheduler", module)
    monkeypatch.delenv(VARIABLE, raising=False)
    register()
    assert SchedulerConfig().get_scheduler_cls() == "vLLM's"
    monkeypatch.setenv(VARIABLE, "1")
    register()
    register()
    from mope.serving_adapters.vllm_adapter import EquinoxScheduler

    assert SchedulerConfig().get_scheduler_cls() is EquinoxScheduler
    assert SchedulerConfig("named").get_scheduler_cls() == "named"


class Metric:
    """A double of prometheus_client's counters and gauges."""

    made: dict[str, Metric] = {}  # noqa: RUF012 - a registry, as theirs

    def __init__(self, name: str, text: str, labels: list[str], **_: object) -> None:
        self.values: dict[tuple[str, ...], float] = {}
        self.at: tuple[str, ...] = ()
        Metric.made[name] = self

    def labels(self, *values: str) -> Metric:
        self.at = values
        return self

    def inc(self, amount: float) -> None:
        assert amount > 0
        self.values[self.at] = self.values.get(self.at, 0.0) + amount

    def set(self, value: float) -> None:
        self.values[self.at] = value


def test_counters_only_grow_and_gauges_are_right_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ModuleType("prometheus_client")
    client.Counter = client.Gauge = Metric  # type: ignore[attr-defined]
    client.REGISTRY = type("R", (), {"_names_to_collectors": {}})()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "prometheus_client", client)
    from mope.serving_adapters.published import Published

    settings = Settings(clock="steps", metrics_s=3600.0, weights={"a": 1.0})
    control, published = Controller(settings), Published(settings)
    control.arrive("r1", "a", 5)
    control.admit("r1")
    published.update(control)
    made = Metric.made
    assert made["mope_equinox_running"].values == {("a",): 1}
    control.finish("r1", 7)
    control.arrive("r2", "b", 5)
    control.abort("r2")
    published.update(control)  # too soon
    assert made["mope_equinox_running"].values == {("a",): 1}
    published.update(control, at_rest=True)
    published.update(control, at_rest=True)
    assert made["mope_equinox_running"].values == {("a",): 0, ("other",): 0}
    assert made["mope_equinox_output_tokens_total"].values == {("a",): 7}
    assert made["mope_equinox_cancelled_total"].values == {("other",): 1}
    control.scheduler.accounts.by_name.clear()  # as if dropped
    control.arrive("r3", "a", 5)
    control.finish("r3", 2)
    published.update(control, at_rest=True)
    assert made["mope_equinox_output_tokens_total"].values == {("a",): 9}
