"""Comparisons against numbers by hand; the paper's study on two seeds of small worlds; a page that opens offline."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.sim import ablation, hardware, memory_search, paper, paper_report, search
from mope.sim.compare import Difference, difference, holm, ratio, sign_flip_p, student_p
from mope.sim.paper import CLAIMS, VARIANTS, Claim, verdict
from mope.sim.report import Page
from mope.sim.scenario import Scenario, load_scenario
from mope.sim.sheets import Sheet, grid, markdown, sheets
from mope.sim.study import JAIN, TPS, TTFT, at_load, comparisons, judged


def test_sign_flips_are_counted() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip_p([1.0, 2.0, -3.0]) == 1.0
    assert sign_flip_p([1.0] * 10) == 2 / 1024
    assert sign_flip_p([1.0]) == sign_flip_p([0.0, 0.0]) == 1.0
    assert sign_flip_p([1.0] * 20) < 0.001


@pytest.mark.parametrize(
    ("t", "count", "p"),
    [
        (2.262157, 10, 0.05),
        (4.780913, 10, 0.001),
        (12.7062, 2, 0.05),
        (0.0, 5, 1.0),
        (1.0, 3, 0.4226497),
        (30.0, 10, 2.5e-10),
    ],
)
def test_student_s_p_is_that_of_the_tables(t: float, count: int, p: float) -> None:
    changes = [1.0, -1.0, *[0.0] * (count - 2)]
    shift = t * stdev(changes) / count**0.5
    assert student_p([one + shift for one in changes]) == pytest.approx(p, rel=0.02 if p < 1e-6 else 1e-4)


def test_student_s_p_where_nothing_varies() -> None:
    assert student_p([2.0, 2.0, 2.0]) == 0.0
    assert student_p([0.0, 0.0]) == student_p([1.0]) == 1.0


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
    assert set(hardware.CHOSEN) <= names


@pytest.mark.parametrize("name", ["paper/dynamic", "paper/arena", "paper/sharegpt"])
def test_load_scales_rates(name: str) -> None:
    scenario = replace(load_scenario(name), duration_s=30.0)
    counts = [sum(1 for _ in one.arrivals(0)) for one in (scenario, at_load(scenario, 2.0))]
    assert counts[1] == pytest.approx(2 * counts[0], rel=0.25)


ROW = {"scenario": "s", "ours": "x", "theirs": "y", "low": 0.8, "high": 0.95, "ratio": True, "value": 0.9}


@pytest.mark.parametrize(
    ("row", "p", "expected"),
    [
        ({"metric": TPS}, 0.01, "worse"),
        ({"metric": TTFT}, 0.01, "better"),
        ({"metric": TTFT}, 0.05, "same"),
        ({"metric": TTFT, "high": 1.01}, 0.01, "same"),
        ({"metric": JAIN, "ratio": False, "value": 0.2, "low": 0.1, "high": 0.3}, 0.01, "better"),
        ({"metric": JAIN, "ratio": False, "value": -0.2, "low": -0.3, "high": -0.1}, 0.01, "worse"),
    ],
)
def test_judgements(row: dict[str, Any], p: float, expected: str) -> None:
    assert judged({**ROW, **row}, p) == expected


def test_comparisons_are_corrected_over_all_rows() -> None:
    def summary(speed: float) -> dict[str, Any]:
        return {TPS: speed, "ttft_s": {"mean": 1.0}}

    runs = {
        ("s", "x"): [summary(2.0 + 0.01 * seed) for seed in range(8)],
        ("s", "y"): [summary(1.0) for _ in range(8)],
    }
    speed, wait = comparisons(runs, [("x", "y")], (TPS, TTFT), ["s"])
    assert (speed["p"] < 1e-9, speed["judged"]) == (True, "better")
    assert speed["value"] == pytest.approx(2.035, abs=0.001)
    assert (wait["value"], wait["p"], wait["judged"]) == (1.0, 1.0, "same")


def shorter(name: str) -> Scenario:
    return replace(load_scenario(name), requests=40)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (paper, paper_report, ablation, hardware, search):
        monkeypatch.setattr(module, "load_scenario", shorter)
    monkeypatch.setattr(ablation, "ALPHAS", (0.1, 0.7))
    monkeypatch.setattr(paper, "LOADS", (0.5, 1.0))
    monkeypatch.setattr(paper, "SCENARIOS", ("balanced", "overload"))


@pytest.mark.usefixtures("short")
def test_the_study_writes_a_page_that_needs_no_network(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    told: list[str] = []
    results = paper_report.run(paper_report.PARTS, 2, told.append)
    assert [row["claim"] for row in results["claims"]] == [claim.text for claim in CLAIMS]
    assert {row["verdict"] for row in results["claims"]} == {"no difference shown"}  # two seeds prove nothing
    assert {row["judged"] for part in ("ladder", "table1", "sweep") for row in results[part]["compared"]} == {
        "same"
    }
    assert len(results["table"]) == 2 * len(VARIANTS)
    assert [row["load"] for row in results["loads"][::12]] == [0.5, 1.0]
    assert told
    page = paper_report.write(tmp_path, results).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "report.html", "results.json", "tables.md",
    ]  # fmt: skip
    assert not re.search(r'(?:src|href)=(?!"data:)', page)
    assert not re.search(r"https?://|url\(|@import|<script|<link", page.partition("<details>")[0])
    assert page.count("<img") >= 2 + 2 * 2
    assert "Jain of service" in page
    assert (
        json.loads((tmp_path / "config.json").read_text())["scenarios"]["paper/arena"]["trace"]["speed"]
        == 8.0
    )
    assert "| throughput 1.3x FCFS | balanced |" in (tmp_path / "tables.md").read_text()


@pytest.mark.usefixtures("short")
def test_hardware_scales_loads_to_what_each_machine_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "SCENARIOS", ("balanced",))
    results = hardware.study(["llama-2-7b@a10g", hardware.HOME], range(2), lambda text: None)
    small, home = results["capacity"]
    assert home["load"] == 1.0
    assert small["load"] == pytest.approx(small["tokens_per_s"] / home["tokens_per_s"])
    assert 0.1 < small["load"] < 0.3
    assert [row["scenario"] for row in results["table"][::4]] == [
        "balanced on llama-2-7b@a10g", "balanced on llama-2-7b@a100-80g",
    ]  # fmt: skip
    capacity, compared, every = sheets(results)
    assert (len(capacity.rows), len(compared.rows), len(every.rows)) == (2, 6, 8)


@pytest.mark.usefixtures("short")
def test_the_search_tunes_on_some_scenarios_and_tests_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, tested = ({one.name for one in made()} for made in (search.training, search.testing))
    assert not trained & tested
    few = search.training()[1:3], search.testing()[:1]
    monkeypatch.setattr(search, "training", lambda: few[0])
    monkeypatch.setattr(search, "testing", lambda: few[1])
    monkeypatch.setattr(search, "ROUNDS", ((2, 0.5), (2, 0.0)))
    results = search.study(3, range(2), lambda text: None)
    assert {row["scenario"] for row in results["compared"]} == {few[1][0].name}
    assert not results["wins"]  # two seeds prove nothing
    assert len(results["tried"]) == 4
    allowed = [row["allowed"] for row in results["tried"]]
    assert results["tried"][0]["allowed"]
    assert results["numbers"]["searched"] == results["tried"][0]["numbers"]
    assert any(row["numbers"] == results["numbers"]["paper"] for row in results["tried"])
    assert allowed
    assert len(next(iter(sheets(results))).rows) == 4


@pytest.mark.usefixtures("short")
def test_the_quantile_of_memory_is_tuned_and_tested_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_search, "load_scenario", shorter)
    trained, tested = ({one.name for one in made()} for made in (search.training, memory_search.testing))
    assert not trained & tested
    few = [replace(search.training()[3], requests=80)], memory_search.testing()[-1:]
    monkeypatch.setattr(search, "training", lambda: few[0])
    monkeypatch.setattr(memory_search, "testing", lambda: few[1])
    monkeypatch.setattr(memory_search, "TRAIN_SEEDS", (100,))
    found = memory_search.study(range(2), lambda text: None)
    assert [row["quantile"] for row in found["tried"]] == list(memory_search.QUANTILES)
    assert found["tried"][-1] == {
        "quantile": 0.9, "throughput": 1.0, "ttft_p99": 1.0, "gap_share": 1.0, "allowed": True,
    }  # fmt: skip
    best = max(found["tried"], key=lambda row: row["throughput"])
    assert found["best"] == best["quantile"]
    assert best["allowed"] or not found["wins"]
    assert {row["scenario"] for row in found["compared"]} == {few[1][0].name}


def test_a_quantile_wins_with_more_throughput_and_nothing_worse() -> None:
    faster = {"metric": TPS, "judged": "better", "value": 1.1}
    later = {"metric": search.P99, "judged": "worse", "value": 1.05}
    assert memory_search.wins([faster, {**later, "value": 1.005}])
    assert not memory_search.wins([faster, later])
    assert not memory_search.wins([later])


def test_a_win_needs_a_smaller_gap_and_nothing_worse() -> None:
    smaller = {"metric": search.AIMS[0], "judged": "better", "value": 0.8}
    slower = {"metric": TPS, "judged": "worse", "value": 0.97}
    hardly = {"metric": TPS, "judged": "worse", "value": 0.995}
    assert search.wins([smaller, hardly])
    assert not search.wins([smaller, slower])
    assert not search.wins([hardly])


def test_what_is_not_allowed_comes_last() -> None:
    def summary(gap: float, speed: float) -> dict[str, Any]:
        difference = {"windowed": {"mean": gap}, "windowed_priced": {"mean": gap}}
        return {"service_difference": difference, TPS: speed, "ttft_s": {"p99": 1.0}}

    runs = {
        ("s", "paper"): [summary(4.0, 1.0)],
        ("s", "x"): [summary(1.0, 1.0)],
        ("s", "y"): [summary(1.0, 0.9)],
    }
    assert search.rated(runs, "x", "paper") == {
        "gap": pytest.approx(0.25), "throughput": 1.0, "ttft_p99": 1.0, "allowed": True,
    }  # fmt: skip
    assert not search.rated(runs, "y", "paper")["allowed"]


def test_tables_as_markdown() -> None:
    sheet = Sheet("A", "b.", ("word", "number"), [["x", "1"]])
    assert (
        markdown("T", "t.", [sheet])
        == "# T\n\nt.\n\n## A\n\nb.\n\n| word | number |\n| --- | ---: |\n| x | 1 |\n"
    )
    rows = [{**ROW, "metric": metric, "judged": word} for metric, word in ((TPS, "worse"), (TTFT, "same"))]
    found = grid("g", "", rows)
    assert found.head == ("scenario", "ours", "against", "tokens/s", "mean TTFT")
    assert found.rows == [["s", "x", "y", "0.900 [0.800, 0.950] worse", "0.900 [0.800, 0.950]"]]


def test_texts_of_a_page_are_escaped(tmp_path: Path) -> None:
    page = Page("a <b> & c")
    page.table(["<x>"], [["<y>"]])
    page.text("<script>")
    page.save(tmp_path / "x.html")
    found = (tmp_path / "x.html").read_text()
    assert "<script>" not in found
    assert "a &lt;b&gt; &amp; c" in found
    assert "&lt;y&gt;</td>" in found
