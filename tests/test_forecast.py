from __future__ import annotations

import numpy as np
import pytest

from mope import ConfigError, Forecast, Forecaster, History, Load, MoPE, Request
from mope.chat import estimate_tokens

HARDWARE = "llama-2-7b@a100-80g"


@pytest.fixture(scope="module")
def shipped() -> MoPE:
    return MoPE.from_pretrained()


def test_length_alone(shipped: MoPE) -> None:
    found = Forecaster(shipped).forecast("Explain quicksort")
    assert found.length == shipped.predict("Explain quicksort")
    assert found.prompt_tokens == estimate_tokens("Explain quicksort")
    assert found.latency_s is None
    assert found.cost is None


def test_hardware_and_prices(shipped: MoPE) -> None:
    made = Forecaster(shipped, HARDWARE, "gpt-4o-mini", load=Load(8, 500.0))
    found = made.forecast(Request("Explain quicksort", prompt_tokens=100))
    assert made.mapper is not None
    assert made.price is not None
    times = made.mapper.times(100.0, found.length.tokens)
    assert found.ttft_s == times.ttft
    assert found.latency_s is not None
    assert found.latency_s.value == pytest.approx(float(times.latency))
    assert found.latency_s.low < found.latency_s.value < found.latency_s.high
    assert found.cost is not None
    assert found.cost.value == pytest.approx(
        (100 * made.price.input + found.length.tokens * made.price.output) / 1e6
    )
    assert found.kv_blocks is not None
    assert found.kv_blocks.value == -(-(100 + found.length.tokens) // 16)


def test_without_prices_money_is_gpu_time(shipped: MoPE) -> None:
    found = Forecaster(shipped, HARDWARE, usd_per_gpu_hour=3.6).forecast("Explain quicksort")
    assert found.cost is not None
    assert found.gpu_s is not None
    assert found.cost == pytest.approx(tuple(0.001 * value for value in found.gpu_s))


def test_an_unmeasured_pair_says_so_and_is_wider(shipped: MoPE) -> None:
    known, guess = (Forecaster(shipped, name).forecast("Hi") for name in (HARDWARE, "llama-2-7b@l40s"))
    assert known.calibrated
    assert not guess.calibrated
    assert known.tpot_s is not None
    assert guess.tpot_s is not None
    assert guess.tpot_s.high / guess.tpot_s.value > known.tpot_s.high / known.tpot_s.value


def test_max_tokens_bounds_what_is_paid_for(shipped: MoPE) -> None:
    made = Forecaster(shipped, HARDWARE, "gpt-4o-mini")
    found = made.forecast(Request("Write a long story", prompt_tokens=10, max_tokens=2))
    assert found.kv_blocks == (1.0, 1.0, 1.0)
    assert made.price is not None
    assert found.cost is not None
    assert found.cost.high <= (10 * made.price.input + 2 * made.price.output) / 1e6 + 1e-12


def test_history_counts_as_prompt(shipped: MoPE) -> None:
    made = Forecaster(shipped)
    assert made.forecast(Request("Hello there", history=History(tokens=1000))).prompt_tokens == 1002


def test_columns_are_the_forecasts(shipped: MoPE) -> None:
    made = Forecaster(shipped, HARDWARE, "gpt-4o-mini", load=Load(4, 100.0))
    asked = [Request(f"Question {i}", prompt_tokens=10 * i + 1) for i in range(5)]
    single, table = made.forecast(asked), made.columns(asked)
    for i, found in enumerate(single):
        assert table["tokens"][i] == found.length.tokens
        assert table["ttft_s"][i] == pytest.approx(found.ttft_s)
        for name in ("latency_s", "tpot_s", "tokens_per_s", "gpu_s", "cost", "kv_blocks"):
            row = [table[f"{name}{end}"][i] for end in ("", "_low", "_high")]
            np.testing.assert_allclose(row, getattr(found, name), rtol=1e-9)
        assert table["mbu"][i] == pytest.approx(found.mbu)


def test_unknown_names_are_refused_with_near_ones(shipped: MoPE) -> None:
    with pytest.raises(ConfigError, match=r"A100-80g"):
        Forecaster(shipped, "llama-2-7b@a100-90g")
    with pytest.raises(ConfigError, match="gpt-4o-mini"):
        Forecaster(shipped, prices="gpt-4o-minni")


def test_a_foreign_length_can_be_mapped(shipped: MoPE) -> None:
    made = Forecaster(shipped, HARDWARE)
    found = made.of_length(Forecast.of_tokens(50).length, Request("x", prompt_tokens=5))
    assert found.latency_s is not None
    assert found.length.tokens == 50
