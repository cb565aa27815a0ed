"""`calibrate` in worlds where the right answer is known: a model exactly twice as wordy, one that needs nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mope.adapt.calibrate import NoGain, calibrate, fit, located
from mope.adapt.observed import observe
from mope.data.records import Example, LengthData
from mope.data.synthetic import synthetic
from mope.errors import DataError
from mope.predictor.bundle import MoPE
from mope.predictor.overlay import Overlay
from mope.predictor.overlays import Overlays
from mope.types import Request

ROWS = 120


@pytest.fixture(scope="module")
def bundle(tiny: Path) -> MoPE:
    return MoPE.from_pretrained(tiny, backend="torch")


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return [replace(request, model="new") for request in synthetic(ROWS, seed=9).requests]


@pytest.fixture(scope="module")
def log(bundle: MoPE, requests: list[Request]) -> Callable[..., LengthData]:
    """A log in which the model's answer is `of` the bundle's own forecast, exactly."""
    forecasts = bundle.predict(requests)

    def make(of: Callable[[float], float], **told: int) -> LengthData:
        return LengthData([
            Example(request, (round(of(f.tokens)),), f"p{i}", **told)
            for i, (request, f) in enumerate(zip(requests, forecasts, strict=True))
        ])  # fmt: skip

    return make


def with_overlay(bundle: MoPE, overlay: object) -> MoPE:
    other = MoPE(bundle.folder, bundle.config, bundle.backend, bundle.tokenizer)
    other.calibration, other.overlays = bundle.calibration, Overlays({"new": overlay})  # type: ignore[dict-item]
    return other


def test_a_model_that_is_twice_as_wordy(
    bundle: MoPE, requests: list[Request], log: Callable[..., LengthData]
):
    overlay, report = calibrate(bundle, log(lambda tokens: 2 * tokens), "new")
    before = np.array([f.tokens for f in bundle.predict(requests)])
    after = np.array([f.tokens for f in with_overlay(bundle, overlay).predict(requests)])
    assert np.median(after / before) == pytest.approx(2, rel=0.03)
    assert np.abs(after - 2 * before).mean() < 0.1 * before.mean()
    assert report.difference.high < 0
    assert report.after["mae"].value < 0.2 * report.before["mae"].value


def test_requests_of_other_models_are_answered_as_before(
    bundle: MoPE, requests: list[Request], log: Callable[..., LengthData]
):
    overlay, _ = calibrate(bundle, log(lambda tokens: 2 * tokens), "new")
    mixed = [replace(r, model=("new", "other", None)[i % 3]) for i, r in enumerate(requests[:30])]
    plain, adapted = bundle.predict(mixed), with_overlay(bundle, overlay).predict(mixed)
    for place, (a, b) in enumerate(zip(plain, adapted, strict=True)):
        assert (a.tokens == pytest.approx(b.tokens, rel=1e-3)) == (place % 3 != 0)
    alone = [with_overlay(bundle, overlay).predict(request) for request in mixed]
    assert np.allclose([f.tokens for f in adapted], [f.tokens for f in alone], rtol=1e-3)


def test_a_forecast_with_an_overlay_is_consistent(
    bundle: MoPE, requests: list[Request], log: Callable[..., LengthData]
):
    rng = random.Random(0)
    overlay, _ = calibrate(bundle, log(lambda tokens: 3 * tokens * rng.uniform(0.5, 2)), "new")
    for forecast in with_overlay(bundle, overlay).predict(requests):
        assert forecast.low <= forecast.tokens <= forecast.high
        assert list(forecast.quantiles) == sorted(forecast.quantiles)
        assert sum(forecast.probabilities) == pytest.approx(1, abs=1e-5)


def test_a_shuffled_log_is_the_same_log(bundle: MoPE, log: Callable[..., LengthData]):
    data = log(lambda tokens: 40 + tokens)
    shuffled = data.take(random.Random(1).sample(range(len(data)), len(data)))
    first, second = calibrate(bundle, data, "new"), calibrate(bundle, shuffled, "new")
    assert first[0].to_json() == second[0].to_json()
    assert first[1] == second[1]


def test_a_log_where_it_would_hurt_is_refused(bundle: MoPE, log: Callable[..., LengthData]):
    with pytest.raises(NoGain, match=r"no overlay for 'new'.*nothing was written"):
        calibrate(bundle, log(lambda tokens: tokens), "new")


def test_a_log_that_is_too_short(bundle: MoPE, log: Callable[..., LengthData]):
    with pytest.raises(DataError, match="answers to 19 prompts of 'new'"):
        calibrate(bundle, log(lambda tokens: tokens).take(range(19)), "new")


def test_cut_answers_are_not_taken_for_lengths(
    bundle: MoPE, requests: list[Request], log: Callable[..., LengthData]
):
    """Three times as wordy, cut at what half of the answers pass: what is left of them still says three."""
    true = log(lambda tokens: 3 * tokens)
    cap = int(np.median(true.lengths))
    cut = LengthData([replace(e, lengths=(min(e.lengths[0], cap),), cap=cap) for e in true.examples])
    naive = LengthData([replace(e, cap=None) for e in cut.examples])
    known, taken = (
        np.array(
            [f.tokens for f in with_overlay(bundle, calibrate(bundle, data, "new")[0]).predict(requests)]
        )
        for data in (cut, naive)
    )
    errors = [np.abs(np.log(tokens / true.lengths)).mean() for tokens in (known, taken)]
    assert errors[0] < 0.7 * errors[1]
    assert known.max() > 1.2 * cap


def test_what_was_observed_stays_as_it_was(bundle: MoPE, log: Callable[..., LengthData]):
    """The fit by folds once wrote its shifted chances into what the last fit then read."""
    examples = log(lambda tokens: 3 * tokens if tokens > 60 else tokens / 3).examples
    seen = observe(bundle, examples, "")
    before = {name: getattr(seen, name).copy() for name in seen.__dataclass_fields__}
    found, _ = fit(bundle, seen, Overlay("new"))
    for name, values in before.items():
        assert np.array_equal(getattr(seen, name), values, equal_nan=True), name
    whole = located(bundle, seen, Overlay("new"))
    assert (found.router, found.knots, found.ridge) == (whole.router, whole.knots, whole.ridge)
