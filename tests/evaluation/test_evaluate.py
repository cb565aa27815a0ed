from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mope.data.records import LengthData
from mope.data.split import part_of
from mope.errors import ConfigError, DataError
from mope.evaluation.bootstrap import Interval
from mope.evaluation.evaluate import evaluate
from mope.evaluation.report import ORACLE_NOTE, Report

SOFT, HARD, ORACLE = "MoPE (routed, soft)", "MoPE (routed, hard)", "MoPE (oracle router)"


def metric(report: Report, column: str, name: str) -> Interval:
    found = next(c for c in report.columns if c.name == column).metrics[name]
    assert found is not None
    return found


def test_metrics_of_a_small_world(worlds: Any) -> None:
    bundle, data = worlds.exact({SOFT: [5, 50, 500], "constant": [60, 60, 60]}, [[5], [110], [400]])
    report = evaluate(bundle, data, part="all", n_boot=50)
    values = {key: metric(report, SOFT, key).value for key in ("mae", "median_ae", "acc_50", "acc_100")}
    assert values == {"mae": 160 / 3, "median_ae": 60, "acc_50": pytest.approx(1 / 3), "acc_100": 1}
    assert metric(report, SOFT, "tau_b").value == pytest.approx(1)
    assert metric(report, SOFT, "order_accuracy").value == 1
    assert metric(report, SOFT, "coverage").value == pytest.approx(2 / 3)  # 110 is above 2 * 50
    assert metric(report, SOFT, "width").value == pytest.approx(1.5 * 555 / 3)
    assert metric(report, "constant", "mae").value == pytest.approx((55 + 50 + 340) / 3)
    assert metric(report, "constant", "order_accuracy").value == 0.5
    assert np.isnan(metric(report, "constant", "tau_b").value)
    constant = next(c for c in report.columns if c.name == "constant")
    assert constant.metrics["pinball"] is constant.metrics["coverage"] is None


def test_every_prompt_counts_once_however_often_it_was_answered(worlds: Any) -> None:
    bundle, data = worlds.exact({SOFT: [10, 20]}, [[10, 30, 50, 30], [25]])
    report = evaluate(bundle, data, part="all", n_boot=20)
    assert (report.data.examples, report.data.samples, report.data.repeated) == (2, 5, 1)
    assert metric(report, SOFT, "mae").value == pytest.approx(((0 + 20 + 40 + 20) / 4 + 5) / 2)
    assert report.data.mean_tokens == pytest.approx((30 + 25) / 2)


def test_the_oracle_is_told_the_median_answer(worlds: Any) -> None:
    bundle, data = worlds.exact({SOFT: [10, 20], ORACLE: [1, 1]}, [[10, 30, 80], [25]])
    report = evaluate(bundle, data, part="all", n_boot=20)
    ((asked, told),) = bundle.asked
    assert (asked, told.tolist()) == (2, [30, 25])
    assert report.notes == (
        ORACLE_NOTE,
        "part all holds rows the bundle was trained on, if it was trained on this data",
    )


def test_skill_against_the_noise_floor(worlds: Any) -> None:
    said = {SOFT: [20, 100, 5], "proxy": [0, 0, 5], "constant": [0, 50, 900]}
    bundle, data = worlds.exact(said, [[10, 30], [90, 110], [5]])
    report = evaluate(bundle, data, part="all", n_boot=50)
    floor = report.floor
    assert floor is not None
    assert report.data.repeated == 2
    # the prompt with one answer stays out: its constant would be 895 off
    assert (floor.prompts, floor.noise_floor.value) == (2, 20)
    assert {name: mae.value for name, mae in floor.mae.items()} == {SOFT: 10, "proxy": 60, "constant": 35}
    assert {name: skill.value for name, skill in floor.skill.items()} == {
        SOFT: pytest.approx(25 / 15),
        "proxy": pytest.approx(-25 / 15),
    }


def test_no_floor_without_repeats_and_no_skill_without_a_constant(worlds: Any) -> None:
    assert evaluate(*worlds.exact({SOFT: [1, 2]}, [[1], [2]]), part="all", n_boot=20).floor is None
    floor = evaluate(*worlds.exact({SOFT: [1, 2]}, [[1, 3], [2]]), part="all", n_boot=20).floor
    assert floor is not None
    assert floor.skill == {}


@pytest.mark.parametrize(("routing", "default"), [("hard", HARD), ("soft", SOFT)])
def test_the_default_routing_is_compared_with_proxy_and_floors(
    worlds: Any, routing: str, default: str
) -> None:
    said = {HARD: [10.0] * 40, SOFT: [12.0] * 40, ORACLE: [10.0] * 40, "proxy": [20.0] * 40}
    said |= {"constant": [30.0] * 40, "surface GBDT": [11.0] * 40}
    bundle, data = worlds.exact(said, [[10]] * 40, routing=routing)
    report = evaluate(bundle, data, part="all")
    own = metric(report, default, "mae").value
    found = {c.baseline: c for c in report.comparisons}
    assert list(found) == ["proxy", "constant", "surface GBDT"]
    assert {c.model for c in report.comparisons} == {default}
    assert found["proxy"].difference == own - 10
    assert found["proxy"].p == 2 / 1001
    assert found["proxy"].p_holm == pytest.approx(3 * 2 / 1001)


def test_router_and_coverage_by_predicted_bucket(worlds: Any) -> None:
    # bounds 10 and 100: said short short medium long, true short medium medium long
    bundle, data = worlds.exact({SOFT: [8, 9, 50, 200]}, [[5], [60], [60], [500]])
    report = evaluate(bundle, data, part="all", n_boot=50)
    found = report.buckets[SOFT]
    assert found.accuracy.value == 0.75
    assert found.macro_f1.value == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found.confusion == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert [(r.bucket, r.samples, r.coverage.value, r.width.value) for r in report.coverage] == [
        ("short", 2, 0.5, 12.75),
        ("medium", 1, 1.0, 75.0),
        ("long", 1, 0.0, 300.0),
    ]


def test_reliability_counts_truths_at_or_below_each_quantile(worlds: Any) -> None:
    bundle, data = worlds.exact({SOFT: [10, 10, 10, 10]}, [[5], [6], [20], [21]])
    rows = evaluate(bundle, data, part="all", n_boot=20).reliability[SOFT]
    assert [(row.level, row.observed.value) for row in rows] == [(0.1, 0.25), (0.5, 0.5), (0.9, 0.75)]


def test_deciles_hold_a_tenth_each_and_merge_where_lengths_are_equal(worlds: Any) -> None:
    lengths = [[i] for i in range(1, 101)]
    found = evaluate(*worlds.exact({SOFT: [0] * 100}, lengths), part="all", n_boot=20).deciles
    assert [(row.low, row.high, row.samples) for row in found[:2]] == [(1, 10, 10), (11, 20, 10)]
    assert [row.mae[SOFT].value for row in found[:2]] == [5.5, 15.5]
    equal = evaluate(*worlds.exact({SOFT: [0] * 30}, [[7]] * 30), part="all", n_boot=20).deciles
    assert [(row.low, row.high, row.samples) for row in equal] == [(7, 7, 30)]


def test_slices_by_source_model_and_true_bucket(worlds: Any) -> None:
    said = {SOFT: [5, 50, 50, 500]}
    given = {"sources": ["b", "a", "a", "b"], "models": ["m", None, "m", "m"]}
    bundle, data = worlds.exact(said, [[6], [40], [120], [500]], **given)

    def cut(by: str) -> list[tuple[str, int, float, float]]:
        report = evaluate(bundle, data, by=by, part="all", n_boot=20)
        return [(s.value, s.samples, s.mae[SOFT].value, s.coverage[SOFT].value) for s in report.slices]

    assert cut("source") == [("a", 2, 40, 0.5), ("b", 2, 0.5, 1)]
    assert cut("model") == [("", 1, 10, 1), ("m", 3, pytest.approx(71 / 3), pytest.approx(2 / 3))]
    assert cut("bucket") == [("short", 1, 1, 1), ("medium", 1, 10, 1), ("long", 2, 35, 0.5)]
    assert evaluate(bundle, data, part="all", n_boot=20).slices == ()


def test_only_conversations_of_the_part_are_asked_about(worlds: Any) -> None:
    bundle, data = worlds.noisy(300)
    report = evaluate(bundle, data, n_boot=20)
    expected = [e for e in data.examples if part_of(e.group) == "test"]
    assert report.data.examples == len(expected) == bundle.asked[0][0] > 0
    assert report.data.digest == LengthData(expected).digest()
    assert report.data.part == "test"


def test_refused_rows_and_notes_of_the_whole_data_are_kept(worlds: Any) -> None:
    bundle, data = worlds.exact({SOFT: [1.0] * 50}, [[1]] * 49 + [[7]], cap=7)
    data.refused.update({"no length": 3})
    data.notes.append("lengths are estimates")
    report = evaluate(bundle, data, n_boot=20)
    assert report.data.refused == {"no length": 3}
    assert report.notes[-1] == "lengths are estimates"
    whole = evaluate(bundle, data, part="all", n_boot=20)
    assert whole.data.capped == 1
    assert "1 of 50 answers were cut at their cap: their true lengths are unknown" in whole.notes


def test_an_empty_part_says_what_to_do(worlds: Any) -> None:
    bundle, data = worlds.exact({SOFT: [1]}, [[1]], groups=["0"])
    absent = next(p for p in ("test", "train") if p != part_of("0"))
    with pytest.raises(DataError, match=r"1 rows, none of them in the part .*--part all"):
        evaluate(bundle, data, part=absent)
    assert not bundle.asked


@pytest.mark.parametrize("wrong", [{"by": "colour"}, {"part": "exam"}])
def test_unknown_words_are_refused_before_the_bundle_is_asked(worlds: Any, wrong: dict[str, str]) -> None:
    bundle, data = worlds.noisy(50)
    with pytest.raises(ConfigError, match="expected: "):
        evaluate(bundle, data, **wrong)
    assert not bundle.asked


def test_one_conversation_gives_values_without_intervals_and_valid_json(worlds: Any) -> None:
    bundle, data = worlds.exact({SOFT: [1, 2], "constant": [2, 2]}, [[1, 4], [3]], groups=["g", "g"])
    report = evaluate(bundle, data, by="source", part="all")
    assert "one conversation only: no intervals" in report.notes
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["columns"][0]["metrics"]["mae"] == {"value": 1.25, "low": None, "high": None}


def test_the_report_is_the_same_for_every_order_of_rows(worlds: Any) -> None:
    bundle, data = worlds.noisy(60, answers=2)
    turned = data.take(range(59, -1, -1))
    first, second = (
        evaluate(bundle, d, by="source", part="all", n_boot=50).to_dict() for d in (data, turned)
    )
    assert flat(first) == pytest.approx(flat(second), rel=1e-9, nan_ok=True)


def test_the_seed_moves_intervals_but_no_value(worlds: Any) -> None:
    bundle, data = worlds.noisy(60)
    first, second = (evaluate(bundle, data, part="all", seed=seed, n_boot=100) for seed in (0, 1))
    assert metric(first, SOFT, "mae").value == metric(second, SOFT, "mae").value
    assert metric(first, SOFT, "mae").low != metric(second, SOFT, "mae").low


def test_every_interval_holds_its_value(worlds: Any) -> None:
    report = evaluate(*worlds.noisy(300, answers=3), by="bucket", part="all")
    found = [i for c in report.columns for i in c.metrics.values() if i and not np.isnan(i.value)]
    assert len(found) > 40
    assert all(i.low <= i.value <= i.high for i in found)


def flat(value: Any) -> list[float]:
    """Every number in a JSON value, in order."""
    if isinstance(value, dict):
        return [x for item in value.values() for x in flat(item)]
    if isinstance(value, list):
        return [x for item in value for x in flat(item)]
    return [float(value)] if isinstance(value, int | float) else []
