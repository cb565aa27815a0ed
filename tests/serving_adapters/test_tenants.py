"""Hostile names: short, printable, few."""

from __future__ import annotations

import re
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tenants import LONGEST, Labels, clean_tenant, overflow

LINE = re.compile(r'# TYPE \w+ gauge|\w+(\{(client|event)="([^"\\\n]|\\["\\n])*"\})? [-+.\w]+')


@given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.floats(), st.booleans()))
def test_every_name_is_short_and_printable(raw: object) -> None:
    name = clean_tenant(raw)
    assert name.isascii()
    assert name.isprintable()
    assert 0 < len(name) <= LONGEST
    assert clean_tenant(raw) == name


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_texts_stay_different(one: str, other: str) -> None:
    assert (clean_tenant(one) == clean_tenant(other)) == (one == other)


def test_a_plain_name_is_kept_and_a_digested_one_cannot_be_imitated() -> None:
    assert clean_tenant("team-a/key 1") == "team-a/key 1"
    digested = clean_tenant("ä" * 100)
    assert clean_tenant(digested) != digested
    assert [clean_tenant(raw) for raw in ("", None, [], True, 7)] == ["default"] * 4 + ["7"]


def test_a_megabyte_of_name_is_clipped() -> None:
    assert len(clean_tenant("x" * 2**20)) <= LONGEST
    assert len(clean_tenant("\x00\n\r\x1b" * 2**18)) <= LONGEST
    assert clean_tenant("\ud800") != clean_tenant("\udc00")


def serve(control: Controller, number: int, tenant: str) -> None:
    control.step()
    control.arrive(f"r{number}", tenant, 5, forecast=3)
    control.admit(f"r{number}")
    control.finish(f"r{number}", 3)


def test_a_flood_of_names_is_bounded_in_memory_and_labels() -> None:
    control = Controller(Settings(clock="steps", max_tenants=200, metric_tenants=5, weights={"gold": 2.0}))
    control.arrive("stays", "gold", 5)
    for number in range(1000):
        serve(control, number, f"flood-{number}")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1000, 6000):
        serve(control, number, f'bad"\n{number}\x00')
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(control.scheduler.accounts.by_name) <= 200 + 65
    assert grown < 400_000
    text = control.metrics_text()
    assert all(LINE.fullmatch(line) for line in text.splitlines()), text
    assert set(re.findall(r'client="([^"]*)"', text)) == {"gold", "other"}


def test_labels_go_to_those_who_stay_and_stay_with_them() -> None:
    labels = Labels(2, named=["gold"], after=3)
    assert [labels.of("gold", 0), labels.of("a", 2), labels.of("a", 3), labels.of("b", 9)] == [
        "gold", "other", "a", "other",
    ]  # fmt: skip
    assert labels.of("a", 0) == "a"


def test_names_beyond_the_limit_share_few_accounts() -> None:
    assert len({overflow(f"n{i}") for i in range(2000)}) == 64
