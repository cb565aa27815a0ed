"""Comparisons against numbers by hand; the paper's study on two seeds of small worlds; a page that opens offline."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.sim import paper, paper_report
from mope.sim.compare import Difference, difference, holm, ratio, sign_flip_p
from mope.sim.paper import CLAIMS, VARIANTS, Claim, at_load, verdict
from mope.sim.report import Page
from mope.sim.scenario import Scenario, load_scenario


def test_sign_flips_are_counted() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip_p([1.0, 2.0, -3.0]) == 1.0
    assert sign_flip_p([1.0] * 10) == 2 / 1024
    assert sign_flip_p([1.0]) == sign_flip_p([0.0, 0.0]) == 1.0
    assert sign_flip_p([1.0] * 20) < 0.001


def test_differences_and_ratios_are_paired() -> None:
    found = difference([3.0, 5.0], [1.0, 3.0])
    assert (found.value, found.low, found.high, found.ratio) == (2.0, 2.0, 2.0, False)
    share = ratio([2.0, 8.0], [1.0, 4.0])
    assert share is not None
    assert (share.value, share.low, share.high) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio([0.0, 1.0], [1.0, 1.0]) is None


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_and_keeps_the_order(p_values: dict[str, float]) -> None:
    found = holm(p_values)
    assert list(found) == list(p_values)
    for one in p_values:
        assert p_values[one] <= found[one] <= 1
        assert all(found[one] <= found[other] for other in p_values if p_values[one] < p_values[other])


def test_holm_by_hand() -> None:
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})


MORE, LESS = Claim("more", "s", "m", "x", "y", 1.3), Claim("less", "s", "m", "x", "y", 0.4)


@pytest.mark.parametrize(
    ("claim", "value", "low", "high", "p", "expected"),
    [
        (MORE, 1.35, 1.25, 1.4, 0.01, "holds"),
        (MORE, 1.1, 1.05, 1.15, 0.01, "smaller"),
        (MORE, 0.9, 0.85, 0.95, 0.01, "reverse"),
        (MORE, 1.1, 0.95, 1.25, 0.01, "no difference shown"),
        (MORE, 1.35, 1.25, 1.4, 0.06, "no difference shown"),
        (LESS, 0.45, 0.38, 0.5, 0.01, "holds"),
        (LESS, 0.8, 0.7, 0.9, 0.01, "smaller"),
        (LESS, 1.2, 1.1, 1.3, 0.01, "reverse"),
    ],
)
def test_verdicts(claim: Claim, value: float, low: float, high: float, p: float, expected: str) -> None:
    assert verdict(claim, Difference(value, low, high, p, True), p) == expected


def test_every_claim_names_variants_and_scenarios_there_are() -> None:
    names = {variant.name for variant in VARIANTS}
    assert {claim.ours for claim in CLAIMS} | {claim.theirs for claim in CLAIMS} <= names
    assert {claim.scenario for claim in CLAIMS} <= set(paper.SCENARIOS)
    assert set(paper_report.PICTURED) <= names


def test_load_scales_rates() -> None:
    scenario = load_scenario("paper/dynamic")
    counts = [sum(1 for _ in one.arrivals(0)) for one in (scenario, at_load(scenario, 2.0))]
    assert counts[1] == pytest.approx(2 * counts[0], rel=0.1)


def shorter(name: str) -> Scenario:
    found = load_scenario(name)
    return replace(found, requests=60)


def test_the_study_writes_a_page_that_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    for module in (paper, paper_report):
        monkeypatch.setattr(module, "load_scenario", shorter)
    told: list[str] = []
    results: dict[str, Any] = paper_report.run(2, told.append)
    assert [row["claim"] for row in results["claims"]] == [claim.text for claim in CLAIMS]
    assert all(
        row["verdict"] == "no difference shown" for row in results["claims"]
    )  # two seeds prove nothing
    assert len(results["table"]) == len(paper.SCENARIOS) * len(VARIANTS)
    assert told
    page = paper_report.write(tmp_path, results, 2).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "report.html", "results.json"]
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count("<img") >= 2 + len(paper.SCENARIOS) * 2
    assert "Jain of service" in page


def test_texts_of_a_page_are_escaped(tmp_path: Path) -> None:
    page = Page("a <b> & c")
    page.table(["<x>"], [["<y>"]])
    page.text("<script>")
    page.save(tmp_path / "x.html")
    found = (tmp_path / "x.html").read_text()
    assert "<script>" not in found
    assert "a &lt;b&gt; &amp; c" in found
    assert "<td>&lt;y&gt;</td>" in found
