from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.errors import ConfigError
from mope.mapper import gpus
from mope.mapper.metrics import Load, Mapper, Times, span
from mope.mapper.profile import Profile
from mope.mapper.shapes import ModelShape
from mope.mapper.steps import Direct

SHAPE = ModelShape.known("llama-2-7b")
LAW = Direct(step=0.010, sequence=0.001, context=1e-6, prefill_step=0.004, prefill_token=2e-4)
PROFILE = Profile("toy", SHAPE, gpus.known("a100-80g"), 1, LAW, spread=0.0)
NAMES = ["llama-2-7b@a100-80g", "llama-2-70b@8xa100-80g", "llama-2-7b@a10g", "mixtral-8x7b@2xh100-sxm"]


def test_a_request_alone_by_hand() -> None:
    times = Mapper(PROFILE).times(100.0, 5.0)
    assert times.ttft == pytest.approx(0.004 + 0.02)
    # Four steps with contexts 101, 102, 103, 104.
    assert times.decode == pytest.approx(4 * 0.011 + 1e-6 * (101 + 102 + 103 + 104))
    assert times.tpot == pytest.approx(float(times.decode) / 4)
    assert times.latency == pytest.approx(float(times.ttft) + float(times.decode))


def test_an_answer_of_one_token_has_no_decode_step() -> None:
    times = Mapper(PROFILE).times(100.0, 1.0)
    assert times.decode == 0.0
    assert times.latency == times.ttft
    assert Mapper(PROFILE).times(100.0, 0.0).latency == times.ttft


def test_in_a_batch_by_hand() -> None:
    mapper = Mapper(PROFILE, Load(batch=3, context=200.0, step_tokens=52))
    times = mapper.times(100.0, 2.0)
    # Two chunks of 50 beside two others, then one step of three sequences.
    assert times.ttft == pytest.approx(2 * (0.010 + 2 * 0.001 + 400e-6) + 0.02)
    assert times.decode == pytest.approx(0.010 + 0.003 + 1e-6 * (400 + 101))
    alone = 0.010 + 0.002 + 400e-6
    added = mapper.added(100.0, times.ttft)
    assert added == pytest.approx(0.02)
    assert mapper.gpu_seconds(times, added) == pytest.approx(0.02 + float(times.decode) / 3)
    assert mapper.impact(100.0, 2.0).tpot_before == pytest.approx(alone)


@pytest.mark.parametrize("name", NAMES)
@given(
    prompt=st.integers(1, 4000),
    output=st.integers(2, 800),
    batch=st.integers(1, 16),
    context=st.integers(0, 900),
)
def test_the_closed_form_is_the_sum_of_steps(
    name: str, prompt: int, output: int, batch: int, context: int
) -> None:
    mapper = Mapper(Profile.load(name), Load(batch, float(context)))
    steps, others = output - 1, batch - 1
    line = mapper.profile.law.decode(float(batch), (others * context + prompt + output / 2) / batch)
    total = sum(float(line.at(others * context + prompt + i)) for i in range(1, steps + 1))
    assert float(mapper.times(float(prompt), float(output)).decode) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
@given(
    prompt=st.integers(1, 3000),
    lengths=st.tuples(*[st.integers(1, 2000)] * 3).map(sorted),
    batch=st.integers(1, 32),
)
def test_columns_agree_with_single_forecasts(name: str, prompt: int, lengths: list[int], batch: int) -> None:
    mapper = Mapper(Profile.load(name), Load(batch, 300.0))
    table = mapper.columns(np.array([prompt, 5.0]), np.array([lengths, [1, 2, 3]], float))
    low, mid, high = map(float, lengths)
    times = [mapper.times(float(prompt), n) for n in (low, mid, high)]
    wanted = span(*(item.latency for item in times), mapper.profile.spread)
    found = [float(table[f"latency_s{end}"][0]) for end in ("", "_low", "_high")]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    shares = mapper.shares(float(prompt), mid, times[1])
    for key in ("mfu", "mbu", "gpu_util"):
        assert float(table[key][0]) == pytest.approx(float(getattr(shares, key)), rel=1e-9)
        assert 0 < table[key][0] <= 1
    for key in ("latency_s", "tpot_s", "gpu_s", "tokens_per_s", "kv_blocks"):
        assert np.all(table[f"{key}_low"] <= table[key])
        assert np.all(table[key] <= table[f"{key}_high"])


def test_utilisation_by_hand() -> None:
    mapper = Mapper(PROFILE)
    times = Times(1.0, 3.0, 0.1)
    shares = mapper.shares(100.0, 31.0, times)
    weights = 32 * SHAPE.active_layer_weights
    head = 32000 * 4096
    pair = 4 * 32 * 32 * 128
    contexts = 30 * (100 + 31 / 2)
    operations = 2 * weights * 130 + 2 * head * 31 + pair * (100 * 100 / 2 + contexts)
    moved = 31 * 2 * (weights + head) + SHAPE.kv_bytes_per_token * (100 + contexts)
    assert shares.mfu == pytest.approx(operations / (4.0 * 312e12))
    assert shares.mbu == pytest.approx(moved / (4.0 * 2.039e12))
    assert shares.mbu < shares.gpu_util < 1


def test_decoding_alone_is_bound_by_memory_and_a_large_batch_less_so() -> None:
    profile = Profile.load("llama-2-7b@a100-80g")
    alone, many = Mapper(profile), Mapper(profile, Load(64, 200.0))
    one = alone.shares(20.0, 300.0, alone.times(20.0, 300.0))
    more = many.shares(20.0, 300.0, many.times(20.0, 300.0))
    assert one.mbu > 5 * float(one.mfu)
    assert more.mfu > 10 * float(one.mfu)


def test_spans_widen_by_both_uncertainties() -> None:
    assert span(5.0, 10.0, 20.0, 0.0) == pytest.approx((10.0, 5.0, 20.0))
    wide = span(5.0, 10.0, 20.0, math.log(2.0))
    factor = math.exp(math.sqrt(2) * math.log(2))
    assert wide == pytest.approx((10.0, 10.0 / factor, 10.0 * factor))
    assert span(20.0, 10.0, 5.0, 0.0) == pytest.approx((10.0, 5.0, 20.0))
    assert span(0.0, 0.0, 3.0, 0.1) == (0.0, 0.0, 3.0)


def test_kv_blocks_and_bytes() -> None:
    mapper = Mapper(PROFILE, Load(block=16))
    assert [mapper.blocks(n) for n in (1.0, 16.0, 17.0)] == [1.0, 1.0, 2.0]
    assert mapper.kv_bytes(2.0) == 2 * 2 * 32 * 32 * 128 * 2
    # Eight key-value heads over sixteen GPUs are kept twice.
    shape = ModelShape.known("llama-2-70b")
    assert (
        Profile("p", shape, gpus.known("h100-sxm"), 16, LAW).kv_bytes_per_token
        == 2 * shape.kv_bytes_per_token
    )


@pytest.mark.parametrize(
    "load",
    [{"batch": 0}, {"context": -1.0}, {"context": math.nan}, {"block": 0}, {"batch": 9, "step_tokens": 8}],
)
def test_an_impossible_load_is_refused(load: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Load(**load)  # type: ignore[arg-type]


def test_a_batch_that_does_not_fit_says_so_with_numbers() -> None:
    with pytest.raises(ConfigError, match=r"100 sequences of 4000 tokens .* at most 1\d\d,\d\d\d tokens"):
        Mapper(PROFILE, Load(batch=100, context=4000.0))
