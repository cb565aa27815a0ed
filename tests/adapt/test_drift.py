from __future__ import annotations

import itertools
import random
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.adapt import drift
from mope.adapt.drift import BLOCK, Blocks, Detector, change_point, payoffs


@pytest.mark.parametrize("ranks", [1, 2, 3, 20, 21, 511, 512])
def test_a_bet_on_a_rank_that_may_be_any_pays_one_on_average_or_less(ranks: int) -> None:
    places = [(2 * rank - 1) / ranks - 1 for rank in range(1, ranks + 1)]
    *tilts, spread = (statistics.fmean(column) for column in zip(*map(payoffs, places), strict=True))
    assert tilts == pytest.approx([1.0] * 4)
    assert spread <= 1.0 + 1e-12
    assert min(min(payoffs(place)) for place in (-1.0, -0.5, 0.0, 0.5, 1.0)) >= 0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_ties_do_not_make_a_bet_pay_more(values: list[int], rng: random.Random) -> None:
    """The last of `values` may be any of them: the mean payoff over all choices is at most 1."""
    paid = []
    for last in range(len(values)):
        others = values[:last] + values[last + 1 :]
        below, upto = sum(v < values[last] for v in others), sum(v <= values[last] for v in others)
        paid.append(payoffs((below + upto + 1) / len(values) - 1))
    assert all(statistics.fmean(column) <= 1 + 1e-12 for column in zip(*paid, strict=True))


def test_the_expected_wealth_after_t_scores_is_at_most_t(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all orders of six values, exactly: what the bound on false alarms rests on."""
    monkeypatch.setattr(drift, "FEWEST", 1)
    total, orders = [Fraction(0)] * 6, list(itertools.permutations(range(6)))
    for order in orders:
        row = Blocks(1e9, 0)
        for place, value in enumerate(order):
            row.observe(float(value))
            total[place] += Fraction(sum(row.wealth) / 5)
    for place, wealth in enumerate(total):
        assert float(wealth / len(orders)) <= place + 1e-9
    assert float(total[5] / len(orders)) > 1.3  # and not because nobody bets


def test_false_alarms_stay_below_the_stated_rate() -> None:
    rate, count, runs = 1e-3, 300, 150
    rng = random.Random(0)
    alarmed = 0
    for _ in range(runs):
        detector = Detector(rate)
        alarmed += any(detector.observe(rng.gauss(0, 1)) for _ in range(count))
    assert alarmed / runs <= rate * count
    assert alarmed > 0  # a rate so high that a detector which never alarms would show


def test_the_bound_holds_across_the_ends_of_blocks() -> None:
    rate, count, runs = 2e-4, 3 * BLOCK, 40
    rng = random.Random(1)
    detectors = [Detector(rate) for _ in range(runs)]
    alarmed = sum(any(d.observe(round(rng.expovariate(0.3))) for _ in range(count)) for d in detectors)
    assert alarmed / runs <= rate * count


@pytest.mark.parametrize("quiet", [100, 256, 400, 510, 520, 700, 1030])
@pytest.mark.parametrize("change", [(1.2, 1.0), (-1.2, 1.0), (0.0, 4.0)])
def test_a_change_is_found_wherever_it_falls_in_the_blocks(quiet: int, change: tuple[float, float]) -> None:
    rng, detector = random.Random(quiet), Detector(1e-5)
    assert not any(detector.observe(rng.gauss(0, 1)) for _ in range(quiet))
    delays = [n for n in range(150) if detector.observe(rng.gauss(*change))]
    assert delays


def test_ever_the_same_score_is_no_change() -> None:
    detector = Detector(0.01)
    assert not any(detector.observe(1.0) for _ in range(3 * BLOCK))


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from((-1.0, 1.0)))
def test_the_change_point_is_where_the_level_changes(before: int, after: int, level: float) -> None:
    assert change_point([0.0] * before + [level] * after) == before


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_something_always_comes_after_the_change_point(scores: list[float]) -> None:
    assert 0 <= change_point(scores) < len(scores)


def test_nothing_and_one_score_have_no_change_point() -> None:
    assert change_point([]) == change_point([3.0]) == change_point([1.0, 1.0]) == 0
