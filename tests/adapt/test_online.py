from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.adapt.online import Health, OnlineCalibrator, OnlineConfig
from mope.errors import BadInput, ConfigError
from mope.types import LengthForecast

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def forecast(log_median: float = 5.0, width: float = 0.6) -> LengthForecast:
    """A log-normal forecast."""
    normal = statistics.NormalDist(log_median, width)
    quantiles = tuple(max(0.0, math.expm1(normal.inv_cdf(level))) for level in LEVELS)
    low, mid, high = quantiles[1], quantiles[3], quantiles[5]
    return LengthForecast(mid, low, high, LEVELS, quantiles, "medium", (0.2, 0.6, 0.2))


def stream(
    rng: random.Random, count: int, shift: float = 0.0, spread: float = 0.6
) -> Iterator[tuple[LengthForecast, int]]:
    """Forecasts and answers that are exp(shift) times as long as forecast, in the median."""
    for _ in range(count):
        middle = rng.gauss(5.0, 0.7)
        yield forecast(middle), max(0, round(math.expm1(middle + rng.gauss(shift, spread))))


def covered(found: LengthForecast, length: float) -> bool:
    return found.low <= length <= found.high


def test_nothing_is_moved_before_anything_is_known() -> None:
    assert OnlineCalibrator().correct(forecast(), "m", "c") == forecast()
    assert OnlineCalibrator().health("m") == Health(0, 0.0, 0, 0)


def test_the_shift_is_shrunk_by_the_number_of_answers() -> None:
    calibrator = OnlineCalibrator(OnlineConfig(prior=4.0))
    told = forecast(5.0)
    calibrator.observe(told, math.expm1(5.5), "m")
    # one answer of four: 1/5 of 0.5 for the population, then 1/5 of the rest for the model
    shift = 0.5 / 5 + (0.5 - 0.5 / 5) / 5
    assert math.log1p(calibrator.correct(told, "m").tokens) == pytest.approx(5.0 + shift)
    assert math.log1p(calibrator.correct(told, "other").tokens) == pytest.approx(5.1)


def test_many_answers_outweigh_the_prior_and_quantiles_move_with_the_ends() -> None:
    calibrator, rng = OnlineCalibrator(), random.Random(1)
    for told, length in stream(rng, 400, shift=1.0):
        calibrator.observe(told, length, "m")
    found = calibrator.correct(forecast(5.0), "m")
    assert math.log1p(found.tokens) == pytest.approx(6.0, abs=0.2)
    assert list(found.quantiles) == sorted(found.quantiles)
    assert found.quantiles[3] == found.tokens
    assert found.quantiles[0] < found.low <= found.tokens <= found.high < found.quantiles[6]
    assert (found.bucket, found.probabilities, found.levels) == ("medium", (0.2, 0.6, 0.2), LEVELS)


def test_a_certain_forecast_gets_an_interval() -> None:
    calibrator, rng = OnlineCalibrator(), random.Random(2)
    sure = LengthForecast(100.0, 100.0, 100.0, (0.1, 0.5, 0.9), (100.0,) * 3, "", (0.0, 0.0, 0.0))
    for _ in range(200):
        calibrator.observe(sure, round(100 * math.exp(rng.gauss(0, 0.5))))
    found = calibrator.correct(sure)
    assert found.low < 75 < 140 < found.high


@pytest.mark.parametrize("shift", [0.0, -0.8, 1.2])
def test_coverage_of_an_exchangeable_stream_is_what_it_says(shift: float) -> None:
    calibrator, rng, hits = OnlineCalibrator(), random.Random(3), 0
    for number, (told, length) in enumerate(stream(rng, 3200, shift, spread=0.9)):
        hits += number >= 200 and covered(calibrator.correct(told), length)
        calibrator.observe(told, length)
    # 3,000 answers: four standard deviations of the binomial are 0.029
    assert abs(hits / 3000 - 0.8) < 0.03


def test_coverage_is_back_after_a_switch_of_model() -> None:
    rng, before, after = random.Random(4), 0, 0
    for _ in range(40):
        calibrator = OnlineCalibrator()
        for told, length in stream(rng, 300, rng.gauss(0, 0.7)):
            calibrator.observe(told, length)
        for number, (told, length) in enumerate(stream(rng, 200, rng.choice((-1.5, 1.5)), 0.8)):
            hit = covered(calibrator.correct(told), length)
            before, after = before + (number < 10 and hit), after + (number >= 100 and hit)
            calibrator.observe(told, length)
    assert before / 400 < 0.6  # the switch is one that hurts
    assert abs(after / 4000 - 0.8) < 0.04


def test_an_alarm_says_that_the_model_has_changed_and_tells_whose() -> None:
    calibrator, rng = OnlineCalibrator(), random.Random(5)
    quiet = [calibrator.observe(*pair, "a") for pair in stream(rng, 300)]
    other = [calibrator.observe(*pair, "b") for pair in stream(rng, 300, 0.5)]
    alarms = [calibrator.observe(*pair, "a") for pair in stream(rng, 100, 1.5)]
    assert not any(quiet)
    assert not any(other)
    assert alarms.count(True) == 1
    assert alarms.index(True) < 50
    assert calibrator.health("a").alarms == 1
    assert calibrator.health("a").since == 99 - alarms.index(True)
    assert calibrator.health("a").shift == pytest.approx(1.5, abs=0.3)
    assert calibrator.health("b").alarms == 0


@pytest.mark.parametrize(
    "length",
    [-1, math.nan, math.inf, -math.inf, True, None, "12", 10**400, 1e9, pytest.param(10**5000, id="huge")],
)
def test_what_is_no_length_is_refused_and_nothing_is_learned(length: object) -> None:
    calibrator = OnlineCalibrator()
    calibrator.observe(forecast(), 100, "m")
    before = calibrator.snapshot()
    with pytest.raises(BadInput, match="length"):
        calibrator.observe(forecast(), length, "new", "c")  # type: ignore[arg-type]
    assert calibrator.snapshot() == before


@pytest.mark.parametrize(
    "ends", [(math.nan, 1.0, 2.0), (0.0, math.inf, math.inf), (3.0, 2.0, 4.0), (-1.0, 2.0, 3.0)]
)
def test_what_is_no_forecast_is_refused(ends: tuple[float, float, float]) -> None:
    low, mid, high = ends
    broken = LengthForecast(mid, low, high, (0.5,), (mid,), "", (0.0, 0.0, 0.0))
    with pytest.raises(BadInput, match="forecast"):
        OnlineCalibrator().observe(broken, 10)
    with pytest.raises(BadInput, match="forecast"):
        OnlineCalibrator().correct(broken)


def test_an_empty_answer_is_a_length() -> None:
    calibrator = OnlineCalibrator()
    for _ in range(50):
        calibrator.observe(forecast(2.0), 0)
    assert calibrator.correct(forecast(2.0)).high < 0.2


def test_capped_answers_are_at_least_as_long_not_as_long() -> None:
    rng, cap = random.Random(6), 150
    told_so, taken_for_lengths = OnlineCalibrator(), OnlineCalibrator()
    for told, length in stream(rng, 600, 0.3):
        told_so.observe(told, min(length, cap), capped=length > cap)
        taken_for_lengths.observe(told, min(length, cap))
    # the true shift is 0.3, and 3 of 5 answers are cut
    blind = taken_for_lengths.health().shift
    assert told_so.health().shift > blind + 0.1
    assert told_so.correct(forecast()).high > taken_for_lengths.correct(forecast()).high


def test_a_capped_answer_inside_the_interval_is_no_hit() -> None:
    calibrator = OnlineCalibrator()
    for told, length in stream(random.Random(7), 300):
        calibrator.observe(told, length)
    tracker = calibrator._models[""].tracker
    up, down = tracker.up, tracker.down
    calibrator.observe(forecast(5.0), math.expm1(5.0), capped=True)
    assert tracker.up == up  # it may have gone on past the end
    assert tracker.down < down  # but it is certainly above the lower one


def test_a_capped_answer_below_the_interval_is_no_miss() -> None:
    calibrator = OnlineCalibrator()
    for told, length in stream(random.Random(7), 300):
        calibrator.observe(told, length)
    tracker = calibrator._models[""].tracker
    down = tracker.down
    calibrator.observe(forecast(5.0), 3, capped=True)
    assert tracker.down == down  # it may have gone on into the interval
    calibrator.observe(forecast(5.0), 3)
    assert tracker.down > down


def test_what_a_changed_model_said_is_forgotten_by_the_population_and_its_clients() -> None:
    calibrator, rng = OnlineCalibrator(OnlineConfig(per_client=True)), random.Random(13)
    for told, length in stream(rng, 300, 1.0):
        calibrator.observe(told, length, "a", "c")
    told = forecast()
    assert calibrator.correct(told, "unheard of").tokens > 2 * told.tokens
    assert any(calibrator.observe(*pair, "a", "c") for pair in stream(rng, 100, -1.0))
    assert len(calibrator.snapshot()["all"]["rows"]) == 1  # the answer that raised the alarm
    assert [key[:2] for key in calibrator.snapshot()["clients"]] == [["a", "c"]]
    assert len(calibrator.snapshot()["clients"][0][2]) == 1


def test_the_model_and_the_client_unheard_of_for_longest_go_first() -> None:
    calibrator = OnlineCalibrator(OnlineConfig(models=2, clients=2, per_client=True))
    for name in ("a", "b", "a", "c"):
        calibrator.observe(forecast(), 100, name, name)
    found = calibrator.snapshot()
    assert [name for name, _ in found["models"]] == ["a", "c"]
    assert [key[:2] for key in found["clients"]] == [["a", "a"], ["c", "c"]]


def test_one_hostile_client_of_half_the_traffic_moves_the_others_by_no_more_than_stated() -> None:
    for attack in (lambda t: 0, lambda t: 1_000_000, lambda t: round(t)):
        rng = random.Random(8)
        clean, poisoned = OnlineCalibrator(), OnlineCalibrator()
        hits = {"clean": 0, "poisoned": 0}
        errors = {"clean": 0.0, "poisoned": 0.0}
        for number, (told, length) in enumerate(stream(rng, 3500, 0.4, 0.8)):
            client = f"honest-{rng.randrange(30)}"
            for name, calibrator in (("clean", clean), ("poisoned", poisoned)):
                found = calibrator.correct(told, "m", client)
                if number >= 500:
                    hits[name] += covered(found, length)
                    errors[name] += abs(math.log1p(found.tokens) - math.log1p(length))
                calibrator.observe(told, length, "m", client)
            poisoned.observe(told, attack(told.tokens), "m", "hostile")
        moved = (hits["poisoned"] - hits["clean"]) / 3000
        share = 0.05
        assert -0.2 * share / (1 - share) - 0.02 < moved < 0.8 * share / (1 - share) + 0.02
        assert errors["poisoned"] / errors["clean"] < 1.02


def test_without_a_bound_half_the_traffic_would_spoil_everything() -> None:
    rng, poisoned, hits = random.Random(9), OnlineCalibrator(), 0
    for told, length in stream(rng, 1000, 0.4, 0.8):
        hits += covered(poisoned.correct(told), length)
        poisoned.observe(told, length)
        poisoned.observe(told, round(told.tokens * math.exp(0.4)))
    assert abs(hits / 1000 - 0.8) > 0.1


def test_memory_is_bounded_by_the_configuration() -> None:
    config = OnlineConfig(window=30, client_window=10, models=3, clients=5, per_client=True, need=20)
    calibrator, rng = OnlineCalibrator(config), random.Random(10)
    for number, (told, length) in enumerate(stream(rng, 1500)):
        calibrator.observe(told, length, f"m{number % 7}", f"c{rng.randrange(1000)}")
    found = calibrator.snapshot()
    assert len(found["models"]) == 3
    assert len(found["clients"]) == 5
    for _, served in found["models"]:
        assert len(served["tracker"]["window"]["rows"]) <= 30
        assert all(len(row["seen"]) <= 512 for row in served["detector"])
    assert all(len(window) <= 10 for _, _, window in found["clients"])


def test_a_client_with_its_own_lengths_is_learned_where_asked() -> None:
    together, apart = OnlineCalibrator(), OnlineCalibrator(OnlineConfig(per_client=True))
    rng = random.Random(11)
    for told, length in stream(rng, 600):
        client = f"c{rng.randrange(30)}"
        for calibrator in (together, apart):
            calibrator.observe(told, length, "m", client)
            calibrator.observe(told, round(length * 0.2), "m", "terse")
    told = forecast()
    assert apart.correct(told, "m", "terse").tokens < 0.4 * told.tokens
    assert together.correct(told, "m", "terse").tokens > 0.6 * told.tokens
    assert apart.correct(told, "m", "unheard of").tokens == pytest.approx(
        together.correct(told, "m", "unheard of").tokens
    )


def test_numbers_of_numpy_are_lengths() -> None:
    known, plain = OnlineCalibrator(), OnlineCalibrator()
    known.observe(forecast(), np.int64(300))  # type: ignore[arg-type]
    known.observe(forecast(), np.float32(300.0))  # type: ignore[arg-type]
    plain.observe(forecast(), 300)
    plain.observe(forecast(), 300)
    assert json.loads(json.dumps(known.snapshot())) == plain.snapshot()


def test_several_threads_lose_nothing() -> None:
    calibrator = OnlineCalibrator(OnlineConfig(per_client=True))
    rows = list(stream(random.Random(12), 250))

    def work(client: str) -> None:
        for told, length in rows:
            calibrator.observe(told, length, "m", client)
            calibrator.correct(told, "m", client)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, "abcd"))
    assert calibrator.health("m").since == 1000
    assert len(calibrator.snapshot()["clients"]) == 4


events = st.lists(
    st.tuples(
        st.floats(1, 8), st.integers(0, 5000), st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans()
    ),
    max_size=60,
)
SMALL = OnlineConfig(window=12, client_window=4, need=6, share=0.2, per_client=True, models=2, clients=3)


def play(calibrator: OnlineCalibrator, rows: list[tuple[float, int, str, str, bool]]) -> list[bool]:
    return [calibrator.observe(forecast(m), length, *rest) for m, length, *rest in rows]  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(events, st.integers(0, 60))
def test_a_restored_calibrator_goes_on_exactly(
    rows: list[tuple[float, int, str, str, bool]], cut: int
) -> None:
    whole, first = OnlineCalibrator(SMALL), OnlineCalibrator(SMALL)
    alarms = play(whole, rows)
    before = play(first, rows[:cut])
    second = OnlineCalibrator.restore(json.loads(json.dumps(first.snapshot())))
    assert before + play(second, rows[cut:]) == alarms
    assert second.snapshot() == whole.snapshot()
    assert second.correct(forecast(), "a", "x") == whole.correct(forecast(), "a", "x")


@settings(max_examples=40, deadline=None)
@given(events)
def test_models_do_not_disturb_each_other(rows: list[tuple[float, int, str, str, bool]]) -> None:
    mixed, apart = OnlineCalibrator(SMALL), OnlineCalibrator(SMALL)
    play(mixed, rows)
    play(apart, sorted(rows, key=lambda row: row[2]))
    states = [dict(c.snapshot()["models"]) for c in (mixed, apart)]
    assert states[0] == states[1]


@settings(max_examples=40, deadline=None)
@given(events, st.floats(0, 10), st.floats(0, 2))
def test_a_corrected_forecast_is_a_forecast(
    rows: list[tuple[float, int, str, str, bool]], middle: float, width: float
) -> None:
    calibrator = OnlineCalibrator(SMALL)
    play(calibrator, rows)
    found = calibrator.correct(forecast(middle, width or 1e-9), "a", "x")
    assert 0 <= found.low <= found.tokens <= found.high < math.inf
    assert list(found.quantiles) == sorted(found.quantiles)
    assert calibrator.correct(found, "a", "x").tokens >= 0


@pytest.mark.parametrize(
    "broken",
    [
        {}, [], {"format": 2}, {"format": 1}, {"format": 1, "config": {"windows": 3}},
        {"format": 1, "config": {"window": 0}},
        {"format": 1, "config": {}, "all": {"arrivals": 1, "rows": [[1, math.nan, 0, 0, ""]]}},
        {"format": 1, "config": {}, "all": {"arrivals": 1, "rows": [[2, 0, 0, 0, ""], [1, 0, 0, 0, ""]]}},
        {"format": 1, "config": {}, "all": {"arrivals": 0, "rows": []}, "models": [["m", {}]]},
    ],
)  # fmt: skip
def test_a_broken_snapshot_is_refused(broken: object) -> None:
    with pytest.raises(BadInput):
        OnlineCalibrator.restore(broken)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"share": 0.0}, {"share": 1.0}, {"false_alarms": math.nan}, {"prior": -1.0}]
)
def test_a_configuration_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        OnlineConfig(**wrong)  # type: ignore[arg-type]
