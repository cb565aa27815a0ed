"""GPU time of a file: exact where lengths and hardware are certain, wider where they are not."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from mope.busy import Busy, busy, busy_curves
from mope.cost import Plan, file_cost
from mope.errors import ConfigError
from mope.mapper.metrics import Mapper
from mope.mapper.profile import Profile
from mope.types import Forecast, Request

DAY = date(2026, 8, 1)
A10G = replace(Profile.load("llama-2-7b@a10g"), spread=0.0)
SIZES = (100, 400, 900)
LENGTHS = (50.0, 300.0, 20.0)
REQUESTS = [Request(f"p{size}", prompt_tokens=size) for size in SIZES]
CERTAIN = [Forecast.of_tokens(tokens).length for tokens in LENGTHS]
WIDE = [Forecast.of_tokens(tokens, tokens / 4, tokens * 4).length for tokens in LENGTHS]


def take(forecasts: list, profile: Profile = A10G, plan: Plan | None = None) -> Busy:  # type: ignore[type-arg]
    found = file_cost(REQUESTS, forecasts, None, profile, plan, today=DAY)
    assert found.bill is None
    assert found.busy is not None
    return found.busy


def expected() -> float:
    lengths = np.repeat(np.array(LENGTHS)[:, None], 3, axis=1)
    return float(Mapper(A10G).columns(np.array(SIZES, np.float64), lengths)["gpu_s"].sum())


def test_certain_lengths_take_what_the_mapper_says() -> None:
    found = take(CERTAIN)
    assert found.gpu_s == pytest.approx((expected(),) * 3)
    assert found.engine_s == pytest.approx(found.gpu_s)
    assert A10G.gpu.usd_per_hour is not None
    assert found.cost is not None
    assert found.cost.value == pytest.approx(expected() / 3600 * A10G.gpu.usd_per_hour)


def test_own_price_and_several_gpus() -> None:
    profile = replace(Profile.load("llama-2-7b@2xa100-80g"), spread=0.0)
    found = take(CERTAIN, profile, Plan(usd_per_gpu_hour=36.0))
    assert found.engine_s.value == pytest.approx(found.gpu_s.value / 2)
    assert found.cost is not None
    assert found.cost.value == pytest.approx(found.gpu_s.value / 100)


def test_a_gpu_without_a_price_has_no_cost() -> None:
    assert busy(Profile.load("llama-3.1-8b@rtx-4090"), np.full(200, 1e3), 1, None, 0).cost is None


def test_lengths_and_hardware_both_widen() -> None:
    certain, hardware, both = take(CERTAIN), take(CERTAIN, replace(A10G, spread=0.3)), take(WIDE)
    assert np.log(hardware.gpu_s.high / hardware.gpu_s.low) == pytest.approx(0.6, rel=0.1)
    assert both.gpu_s.high / both.gpu_s.low > 1.5
    assert certain.gpu_s.high == pytest.approx(certain.gpu_s.low)


def test_sharing_the_engine_takes_less_of_it() -> None:
    assert take(CERTAIN, plan=Plan(batch=8)).gpu_s.value < take(CERTAIN).gpu_s.value / 2


def test_max_tokens_bounds_time() -> None:
    capped = [replace(request, max_tokens=10) for request in REQUESTS]
    curves = busy_curves(A10G, 1, np.array(SIZES, np.float64), WIDE, capped)
    far = curves.at(np.full((3, 1), 3.5), np.arange(3))
    most = np.full((3, 3), 10.0)
    assert far[:, 0] == pytest.approx(1e3 * Mapper(A10G).columns(np.array(SIZES, np.float64), most)["gpu_s"])


def test_a_batch_that_does_not_fit_says_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"500 sequences.*KV cache"):
        take(CERTAIN, plan=Plan(batch=500))
