"""What is timed is what is said: clocks, batches, and every runner computing the same numbers."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from mope.bench.kernels import passes
from mope.bench.kernels.numerics import errors, in_double
from mope.bench.kernels.onnx import exported
from mope.bench.kernels.passes import MIXED, Case, grid, halved, packed, padded, time_passes
from mope.bench.kernels.timing import Budget, in_turns
from mope.kernels import reference
from mope.predictor.config import EncoderConfig
from mope.predictor.made_up import made_up_config, made_up_inputs, made_up_networks
from mope.types import BUCKETS

TINY = EncoderConfig(32, 2, 2, 48, 50, 520)


@pytest.fixture(scope="module")
def made():
    config = made_up_config(TINY)
    networks = made_up_networks(config, BUCKETS, "cpu")
    for network in networks.values():
        torch.nn.init.normal_(network.head.out.weight, std=0.1)
    return config, networks


def test_calls_are_timed_in_turns():
    order = []
    calls = {name: partial(order.append, name) for name in ("a", "b")}
    ticks = count()
    cpu = count()
    budget = Budget(repeats=3, seconds=1e9, slow_s=1e9)
    got = in_turns(calls, budget, lambda: next(ticks) / 1000, lambda: next(cpu) / 2000)
    assert order == ["a", "a", "b", "b", *["a", "b"] * 3]
    assert got["a"] == {"p50_ms": 1.0, "p99_ms": 1.0, "least_ms": 1.0, "cpu_p50_ms": 0.5, "calls": 3}


def test_the_budget_ends_the_rounds_and_a_slow_call_is_timed_once():
    now = [0.0]

    def takes(seconds: float) -> None:
        now[0] += seconds

    calls = {"quick": partial(takes, 1.0), "slow": partial(takes, 50.0)}
    got = in_turns(calls, Budget(repeats=100, seconds=2.5, slow_s=10.0), clock=lambda: now[0])
    assert got["slow"]["calls"] == 1
    assert got["slow"]["p50_ms"] == 50_000
    assert got["quick"]["calls"] == 3


def test_batches_are_what_they_say():
    assert Case(3, 7, "soft").lengths() == [7, 7, 7]
    assert Case(2, 7, "soft").wanted().tolist() == [[0, 1, 2], [0, 1, 2]]
    mixed = Case(4000, MIXED, "hard skewed")
    assert mixed.lengths() == mixed.lengths()
    assert np.median(mixed.lengths()) == pytest.approx(60, rel=0.1)
    assert max(mixed.lengths()) == 512
    shares = np.bincount(mixed.wanted()[:, 0]) / 4000
    assert shares == pytest.approx([0.8, 0.15, 0.05], abs=0.02)
    assert {case.batch for case in grid(True)} == {1, 2, 4, 8, 16, 32, 128}
    assert {case.tokens for case in grid(True)} == {32, 64, 128, 256, 512, MIXED}
    assert {case.routing for case in grid(False)} == set(passes.ROUTINGS)


@pytest.mark.parametrize("routing", passes.ROUTINGS)
def test_every_runner_computes_the_same(routing, made, tmp_path: Path):
    config, networks = made
    case = Case(5, MIXED, routing)
    inputs, wanted = made_up_inputs(case.lengths(), config), case.wanted()
    exact = in_double(networks, config, inputs)
    want = [exact[(wanted == e).any(1), e] for e in range(3) if (wanted == e).any()]
    states = {name: network.state_dict() for name, network in networks.items()}
    runners = {
        "eager": partial(padded, networks, False),
        "sdpa": partial(padded, networks, True),
        "onnx": exported(networks["short"], config, tmp_path) if routing == "soft" else None,
    }
    for name, runner in runners.items():
        if runner is not None:
            outs = runner(inputs, wanted)()
            given = outs[:1] if name == "onnx" else outs  # the one expert that stands for all
            for got, right in zip([np.asarray(x).reshape(-1, 13) for x in given], want, strict=False):
                assert np.allclose(got, right, atol=1e-4), name
    out = packed(reference, states, config, torch.float32)(inputs, wanted)()["out"][: wanted.size]
    right = np.stack([exact[row, e] for row, experts in enumerate(wanted) for e in experts])
    assert np.allclose(out, right, atol=1e-5)


def test_halved_networks_run_and_are_near(made):
    config, networks = made
    inputs, wanted = made_up_inputs([9, 30], config), Case(2, 1, "soft").wanted()
    half = padded(halved(networks, torch.bfloat16), True, inputs, wanted)()
    full = padded(networks, True, inputs, wanted)()
    for a, b in zip(half, full, strict=True):
        assert 0 < (a - b).abs().max() < 0.05


def test_errors_grow_with_the_roundings(made):
    config, networks = made
    found = errors(networks, config, made_up_inputs([5, 20, 40], config))
    assert found["torch FP32"]["largest"] < 1e-5
    assert found["packed FP32"]["largest"] < 1e-5
    assert found["packed FP32"]["mean"] < found["packed FP16"]["mean"] < found["packed BF16"]["mean"] < 0.02


def test_a_row_holds_times_and_floors(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(
        passes, "available", lambda config, networks, *_: {"torch": partial(padded, networks, True)}
    )
    cases = [Case(1, 8, "soft"), Case(2, 8, "hard balanced")]
    rows = time_passes("tiny", TINY, cases, Budget(repeats=2, seconds=5), tmp_path, False)
    assert [(row["batch"], row["routing"]) for row in rows] == [(1, "soft"), (2, "hard balanced")]
    for row in rows:
        assert row["roofline"]["launches"] == 12
        assert row["runners"]["torch"]["calls"] >= 1
        assert row["tflops"]["torch"] >= 0


def test_a_slow_runner_is_left_out_of_larger_cases_only(tmp_path: Path, monkeypatch):
    asked = []

    def runner(inputs, wanted):
        asked.append(len(inputs))
        return lambda: None

    monkeypatch.setattr(passes, "available", lambda *_: {"x": runner})
    monkeypatch.setattr(passes, "in_turns", lambda calls, budget: {k: {"p50_ms": 5000.0} for k in calls})
    cases = [Case(4, 8, "soft"), Case(8, 8, "soft"), Case(1, 8, "soft"), Case(2, 8, "soft")]
    time_passes("tiny", TINY, cases, Budget(slow_s=4.0), tmp_path, False)
    assert asked == [4, 1]
