from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.mapper import gpus
from mope.mapper.parts import Linear, Link, Matmul
from mope.mapper.shapes import ModelShape
from mope.mapper.steps import Direct, Layered, StepLaw

DIRECT = Direct(0.010, 0.001, 1e-6, 0.004, 2e-4, 1e-9)
LAYERED = Layered(ModelShape.known("llama-2-7b"), gpus.known("a100-80g"))
CUT = Layered(ModelShape.known("llama-2-70b"), gpus.known("h100-sxm"), 4)
MOE = Layered(ModelShape.known("mixtral-8x7b"), gpus.known("h100-sxm"), 2)
LAWS = pytest.mark.parametrize("law", [DIRECT, LAYERED, CUT, MOE], ids=["direct", "one", "cut", "experts"])


def test_a_direct_law_is_its_lines() -> None:
    assert DIRECT.decode(4.0, 100.0).at(400.0) == pytest.approx(0.010 + 0.004 + 0.0004)
    assert DIRECT.prefill(50.0, 1e9, 0.0, 0.0) == pytest.approx(0.004 + 0.01 + 2.5e-6)
    # Two chunks beside two sequences of 100 tokens: the larger constant twice, their lines twice.
    beside = 2 * (0.010 + (0.001 + 1e-6 * 100) * 2)
    assert DIRECT.prefill(50.0, 25.0, 2.0, 100.0) == pytest.approx(beside + 0.01 + 2.5e-6)


@LAWS
@given(batch=st.integers(1, 64), mean=st.integers(1, 4000))
def test_a_longer_context_and_a_larger_batch_never_cost_less(law: StepLaw, batch: int, mean: int) -> None:
    line = law.decode(float(batch), float(mean))
    assert 0 < line.seconds < 10
    assert line.per_token >= 0
    # A fuller last wave can make a token of context cheaper, never the whole step.
    more = law.decode(batch + 8.0, float(mean))
    assert more.at((batch + 8.0) * mean) > 0.9 * line.at(batch * float(mean))


@LAWS
@given(
    tokens=st.integers(1, 6000),
    chunk=st.integers(16, 4096),
    batch=st.integers(0, 32),
    mean=st.integers(0, 3000),
)
def test_arrays_and_floats_agree(law: StepLaw, tokens: int, chunk: int, batch: int, mean: int) -> None:
    one = law.prefill(float(tokens), float(chunk), float(batch), float(mean))
    many = law.prefill(np.array([tokens, 7.0]), float(chunk), float(batch), float(mean))
    assert float(many[0]) == pytest.approx(float(one), rel=1e-12)  # type: ignore[index]
    if batch:
        line, lines = law.decode(float(batch), float(mean)), law.decode(np.array([float(batch)]), float(mean))
        assert float(lines.seconds[0]) == pytest.approx(float(line.seconds), rel=1e-12)  # type: ignore[index]


@given(tokens=st.integers(1, 9000), chunk=st.integers(128, 2048), batch=st.integers(0, 8))
def test_the_closed_sum_over_chunks_is_the_sum(tokens: int, chunk: int, batch: int) -> None:
    law, n, done = CUT, float(batch), 0
    total = 0.0
    while done < tokens:
        c = float(min(chunk, tokens - done))
        total += float(law.rows(c + n, n + 1.0)) + law.shape.layers * float(law._chunk(c, float(done)))
        if batch:
            fixed, per_token = law._attention(n, 500.0)
            total += float(fixed) + float(per_token) * n * 500.0
        done += int(c)
    assert float(law.prefill(float(tokens), float(chunk), n, 500.0)) == pytest.approx(total, rel=1e-9)


def test_a_prepared_table_says_what_the_formula_says() -> None:
    fresh, ready = Layered(CUT.shape, CUT.gpu, 4), Layered(CUT.shape, CUT.gpu, 4)
    ready.prepare(3, 512)
    for tokens in (1.0, 64.0, 65.0, 512.0, 700.0):
        assert ready.rows(tokens + 3, 4.0) == pytest.approx(float(fresh.rows(tokens + 3, 4.0)), rel=1e-12)
    tokens = np.array([1.0, 65.0, 512.0]) + 3
    np.testing.assert_allclose(
        ready.rows(tokens, 4.0), [float(fresh.rows(t, 4.0)) for t in tokens], rtol=1e-12
    )
    beyond = np.array([4.0, 2000.0])
    np.testing.assert_allclose(ready.rows(beyond, 4.0), fresh._rows(beyond, 4.0), rtol=1e-12)
    between = np.array([4.5])
    np.testing.assert_allclose(ready.rows(between, 4.0), fresh._rows(between, 4.0), rtol=1e-12)


def test_a_product_far_from_both_corners_is_its_roofline() -> None:
    gpu = gpus.known("a100-80g")
    part = Linear(compute=0.5, memory=0.5, fixed=0.0, elementwise=1.0, waves=0.0, blend=6.0)
    product = Matmul(4096.0, 4096.0)
    few, many = float(part.product(product, gpu, 1.0)), float(part.product(product, gpu, 100_000.0))
    assert few == pytest.approx(4096 * 4096 * 2 / (0.5 * gpu.bandwidth), rel=0.01)
    assert many == pytest.approx(2 * 4096 * 4096 * 1e5 / (0.5 * gpu.flops_bf16), rel=0.01)


def test_waves_step_where_a_tile_more_is_needed() -> None:
    gpu = gpus.known("a100-80g")
    part = Linear(waves=1.0, fixed=0.0)
    product = Matmul(8192.0, 128.0 * gpu.units)  # one tile a multiprocessor for 128 rows
    at = [float(part.product(product, gpu, n)) for n in (1280.0, 1281.0, 1408.0)]
    assert at[1] > 1.08 * at[0]
    assert at[2] < 1.001 * at[1]


def test_experts_are_read_as_they_are_touched() -> None:
    product = Matmul(10.0, 10.0, experts=8, share=0.25)
    assert product.touched(1.0) == pytest.approx(2.0)
    assert product.touched(1000.0) == pytest.approx(8.0)
    assert Matmul(10.0, 10.0).touched(3.0) == 1.0


def test_a_sliding_window_bounds_what_a_token_reads() -> None:
    whole = ModelShape.known("llama-3.1-8b")
    window = ModelShape(
        **{
            name: getattr(whole, name)
            for name in ("name", "layers", "hidden", "heads", "kv_heads", "head_dim")
        },
        ffn=whole.ffn,
        vocab=whole.vocab,
        window=1024,
    )
    gpu = gpus.known("h100-sxm")
    near, far = Layered(window, gpu).decode(8.0, 512.0), Layered(window, gpu).decode(8.0, 8192.0)
    assert float(near.per_token) == pytest.approx(float(Layered(whole, gpu).decode(8.0, 512.0).per_token))
    assert float(far.per_token) * 8192 == pytest.approx(float(near.per_token) * 1024)


def test_one_gpu_sends_nothing_and_two_send_once() -> None:
    gpu = gpus.known("a100-80g")
    link = Link(latency=1e-5, share=0.5)
    assert link.time(1e6, gpu, 1) == 0.0
    assert link.time(1e6, gpu, 2) == pytest.approx(1e-5 + 1e6 / (0.5 * gpu.link_bandwidth))


def test_sizes_that_were_met_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mope.mapper.steps.MOST_KNOWN", 50)
    law = Layered(CUT.shape, CUT.gpu, 4)
    first = law.rows(1.0, 1.0)
    for tokens in range(1, 400):
        law.rows(float(tokens), 1.0)
    assert len(law._known) <= 50
    assert law.rows(1.0, 1.0) == first
