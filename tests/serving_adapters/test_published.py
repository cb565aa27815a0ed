"""What /metrics would show, with a registry of ten lines in place of prometheus_client's."""

from __future__ import annotations

import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mope.serving_adapters.base import Controller
from mope.serving_adapters.published import Published
from mope.serving_adapters.settings import Settings


class Series:
    """A counter or gauge and its values by label."""

    def __init__(self, name: str, about: str, labels: list[str], **named: Any) -> None:
        self.values: dict[str, float] = defaultdict(float)

    def labels(self, label: str) -> Any:
        def put(value: float) -> None:
            self.values[label] = value

        def inc(value: float) -> None:
            self.values[label] += value

        return SimpleNamespace(set=put, inc=inc)

    def set(self, value: float) -> None:
        self.values[""] = value


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    module = ModuleType("prometheus_client")
    module.Counter = module.Gauge = Series  # type: ignore[attr-defined]
    module.REGISTRY = SimpleNamespace(_names_to_collectors={})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "prometheus_client", module)
    return Published(Settings())


def test_a_tenant_that_gets_its_label_leaves_nothing_behind_in_the_rest(published: Published) -> None:
    controller = Controller(Settings(clock="steps"))
    running = published._gauges["running"].values
    for number in range(4):  # a label comes with the third that is finished
        controller.step()
        controller.arrive(f"r{number}", "a", 5)
        controller.admit(f"r{number}")
        published.update(controller, at_rest=True)
        assert sum(running.values()) == 1
        controller.finish(f"r{number}", 3)
    published.update(controller, at_rest=True)
    assert running == {"other": 0, "a": 0}


def test_counters_only_go_up(published: Published) -> None:
    controller = Controller(Settings(clock="steps"))
    finished, seen = published._counters["finished"].values, []
    for number in range(6):
        controller.step()
        controller.arrive(f"r{number}", "a", 5)
        controller.admit(f"r{number}")
        controller.finish(f"r{number}", 3)
        published.update(controller, at_rest=True)
        seen.append(sum(finished.values()))
    assert seen == sorted(seen)
    assert finished["a"] == 6
