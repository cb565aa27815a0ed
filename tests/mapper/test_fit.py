from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mope.errors import DataError
from mope.mapper import fit, gpus
from mope.mapper.build import Measured, build_profile, predicted, within
from mope.mapper.logs import step_points
from mope.mapper.parts import Decode, Linear, Link, Prefill
from mope.mapper.points import (
    DecodePoints,
    LayerPoints,
    LinkPoints,
    PrefillPoints,
    RequestPoints,
    StepPoints,
)
from mope.mapper.shapes import ModelShape
from mope.mapper.steps import Direct, Layered
from mope.mapper.tables import read_points

TABLES = Path(__file__).parent / "tables"
RNG = np.random.default_rng(0)
LAW = Layered(ModelShape.known("llama-2-7b"), gpus.known("a100-80g"))
TRUE = Direct(step=0.008, sequence=2e-4, context=8e-7, prefill_step=0.008, prefill_token=1e-4)


def steps(n: int = 300) -> StepPoints:
    batch = RNG.integers(1, 64, n).astype(float)
    context = batch * RNG.integers(50, 2000, n)
    tokens = np.where(RNG.random(n) < 0.3, RNG.integers(16, 2048, n), 0).astype(float)
    points = StepPoints(tokens, batch, context, np.ones(n))
    return replace(points, seconds=fit.predict_direct(TRUE, points))


def close(found: Direct, rel: float) -> None:
    for name in ("step", "sequence", "context", "prefill_token"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=rel), name


def test_lines_are_found_again() -> None:
    found, errors = fit.fit_direct(steps())
    close(found, 0.02)
    assert errors.inside.median < 0.002
    assert max(held.median for held in errors.ranges.values()) < 0.01


def test_a_tenth_of_nonsense_hardly_matters() -> None:
    points = steps()
    wild = points.seconds * np.where(np.arange(300) % 10 == 0, 8.0, 1.0)
    close(fit.fit_direct(replace(points, seconds=wild))[0], 0.1)


@pytest.mark.parametrize("tp", [1, 2])
def test_a_real_layer_table_is_fitted_to_a_few_percent(tp: int) -> None:
    law = replace(LAW, tp=tp)
    [points] = read_points(TABLES / "vidur_layers.csv", tp=tp)
    assert isinstance(points, LayerPoints)
    found, errors = fit.fit_linear(law, points)
    assert errors.inside.median < 0.06
    roofline = Linear(compute=1.0, memory=1.0, fixed=0.0, elementwise=1e6, waves=0.0, blend=6.0)
    naive = np.median(np.abs(fit.predict_linear(law, roofline, points) / points.seconds - 1))
    assert errors.inside.median < naive / 4
    assert 0.3 < found.compute < 1.2


def test_parts_are_found_again() -> None:
    law = Layered(ModelShape.known("llama-3.1-8b"), gpus.known("h100-sxm"), 2)
    batch, context = (
        grid.ravel().astype(float) for grid in np.meshgrid([1, 2, 4, 8, 32, 64], [64, 512, 2048, 8192])
    )
    attention = Decode(fixed=2e-5, sequence=5e-8, short=1.4, long=1.4, waves=0.2, idle=0.5)
    points = DecodePoints(batch, context, np.ones_like(batch))
    points = replace(points, seconds=fit.predict_decode(law, attention, points))
    found, errors = fit.fit_decode(law, points)
    assert errors.inside.median < 0.02
    assert found.long == pytest.approx(1.4, rel=0.05)
    tokens, prefix = (
        grid.ravel().astype(float) for grid in np.meshgrid([64, 256, 1024, 2048], [0, 512, 4096])
    )
    reading = Prefill(fixed=2e-5, row=2e-9, own=3.0, prefix=2.5, reading=1.2)
    prefill = PrefillPoints(np.ones_like(tokens), tokens, prefix, np.ones_like(tokens))
    prefill = replace(prefill, seconds=fit.predict_prefill(law, reading, prefill))
    again, _ = fit.fit_prefill(law, prefill)
    assert again.own == pytest.approx(3.0, rel=0.1)
    assert again.prefix == pytest.approx(2.5, rel=0.1)
    size = 2.0 ** np.arange(10, 26)
    link = Link(latency=2.5e-5, share=0.4)
    sent = LinkPoints(size, np.asarray(link.time(size, law.gpu, 2)))
    back, _ = fit.fit_link(law, sent)
    assert back.share == pytest.approx(0.4, rel=0.02)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(DataError, match="9 points; expected: at least 10"):
        fit.fit_direct(steps(9))


def serve(requests: int = 400) -> RequestPoints:
    """An engine that reads prompts one at a time, alone, and else decodes everything it holds, by `TRUE`."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(20, 900, requests), rng.integers(10, 300, requests)
    arrival = np.cumsum(rng.exponential(0.35, requests))
    first, last = np.zeros(requests), np.zeros(requests)
    now, waiting, running, done = 0.0, 0, {}, 0
    while done < requests:
        if waiting < requests and arrival[waiting] <= now and len(running) < 40:
            now += TRUE.prefill_step + TRUE.prefill_token * sizes[0][waiting]
            first[waiting], running[waiting] = now, 1
            waiting += 1
        elif running:
            held = sum(sizes[0][i] + got for i, got in running.items())
            now += float(TRUE.decode(len(running), held / len(running)).at(held))
            for i in list(running):
                running[i] += 1
                if running[i] == sizes[1][i]:
                    last[i] = now
                    del running[i]
                    done += 1
        else:
            now = arrival[waiting]
    return RequestPoints(arrival, first, last, sizes[0].astype(float), sizes[1].astype(float))


def test_the_steps_of_an_engine_are_found_from_its_request_log() -> None:
    found, errors = fit.fit_direct(step_points(serve()))
    assert found.step == pytest.approx(TRUE.step, rel=0.25)
    assert found.sequence == pytest.approx(TRUE.sequence, rel=0.35)
    assert found.prefill_token == pytest.approx(TRUE.prefill_token, rel=0.35)
    assert errors.inside.median < 0.03


def test_a_log_by_hand() -> None:
    many = 12
    log = RequestPoints(
        np.zeros(many), np.zeros(many), np.full(many, 10.0), np.full(many, 99.0), np.full(many, 11.0)
    )
    points = step_points(log)
    np.testing.assert_allclose(points.seconds, 1.0)
    np.testing.assert_allclose(points.batch, many)
    np.testing.assert_allclose(points.context, many * (100.0 + 5.0))
    np.testing.assert_allclose(points.tokens, 0.0)
    with pytest.raises(DataError, match="at least 10"):
        step_points(replace(log, output_tokens=np.full(many, 2.0)))


def test_a_profile_from_tables_and_from_a_log() -> None:
    shape, gpu = ModelShape.known("llama-2-70b"), gpus.known("a100-80g")
    tables = [Measured(p, "attention") for p in read_points(TABLES / "vidur_attention.csv", tp=2)]
    built = build_profile(shape, gpu, 2, tables)
    assert set(built.error) == {"attention", "reading"}
    guess, seen = predicted(built, tables[0].points)
    assert np.median(np.abs(guess / seen - 1)) < 0.1
    logged = build_profile(LAW.shape, gpu, 1, [Measured(steps(), "log")], name="mine")
    assert isinstance(logged.law, Direct)
    assert logged.name == "mine"
    with pytest.raises(DataError, match="one kind"):
        build_profile(LAW.shape, gpu, 1, [Measured(steps(), "log"), *tables])


def test_kernels_beyond_what_an_engine_runs_are_left_out() -> None:
    big = DecodePoints(np.array([8.0, 8.0, 1024.0, 256.0]), np.array([100.0, 1e5, 10.0, 16384.0]), np.ones(4))
    kept = within(big, LAW)
    assert isinstance(kept, DecodePoints)
    assert list(kept.context) == [100.0]
