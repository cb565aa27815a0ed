"""The packed backend in the bundle, by the reference operations: kernels are tested in tests/kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mope.kernels
from mope.data.synthetic import synthetic
from mope.errors import BundleError
from mope.kernels import reference
from mope.predictor import backends, graphs, triton_backend
from mope.predictor.bundle import MoPE
from mope.predictor.graphs import Buckets
from mope.predictor.layout import ENCODER_ROUTER
from mope.predictor.triton_backend import TritonBackend

REQUESTS = synthetic(30, seed=5).requests


@pytest.fixture(scope="module")
def pair(tiny: Path) -> tuple[MoPE, MoPE]:
    slow = MoPE.from_pretrained(tiny, backend="torch")
    fast = MoPE(tiny, slow.config, TritonBackend(tiny, slow.config, ops=reference), slow.tokenizer)
    fast.calibration = slow.calibration
    return slow, fast


@pytest.mark.parametrize("routing", ["hard", "soft"])
@pytest.mark.parametrize("router", ["lexical", "encoder", "both"])
def test_forecasts_are_those_of_the_torch_backend(routing, router, pair):
    slow, fast = pair
    slow.config = fast.config = replace(slow.config, routing=routing, router=router)
    for want, got in zip(slow.predict(REQUESTS), fast.predict(REQUESTS), strict=True):
        assert got.quantiles == pytest.approx(want.quantiles, rel=1e-4, abs=1e-3)
        assert (got.low, got.high) == pytest.approx((want.low, want.high), rel=1e-4, abs=1e-3)
        assert got.probabilities == pytest.approx(want.probabilities, abs=1e-5)
        assert got.bucket == want.bucket


def test_every_column_is_that_of_the_torch_backend(pair):
    slow, fast = pair
    want, got = slow.columns(REQUESTS), fast.columns(REQUESTS)
    assert list(want) == list(got)
    for name, column in want.items():
        assert np.allclose(column.tokens, got[name].tokens, rtol=1e-4, atol=1e-3), name


def test_one_request_alone_and_among_others_is_the_same(pair):
    _, fast = pair
    among = fast.predict(REQUESTS)
    for place in (0, 7, 29):
        assert fast.predict(REQUESTS[place]).tokens == pytest.approx(among[place].tokens, rel=1e-5)


def test_portions_are_put_together_in_order(pair, monkeypatch):
    _, fast = pair
    want = fast.predict(REQUESTS)
    monkeypatch.setattr(triton_backend, "TOKENS", 90)
    monkeypatch.setattr(triton_backend, "ROWS", 3)
    assert [f.tokens for f in fast.predict(REQUESTS)] == pytest.approx([f.tokens for f in want], rel=1e-5)


def test_padding_in_a_bucket_cannot_reach_an_answer(pair, monkeypatch):
    """What a larger batch left in the buffers of a bucket is still there when a smaller one comes."""
    _, fast = pair
    monkeypatch.setattr(fast.backend, "buckets", Buckets(fast.backend.device))
    want = fast.predict(REQUESTS[:3])
    fast.predict(REQUESTS[4:8])  # of the same bucket, with other texts
    assert fast.predict(REQUESTS[:3]) == want


def test_old_buckets_are_dropped(pair, monkeypatch):
    _, fast = pair
    monkeypatch.setattr(graphs, "KEPT", 2)
    monkeypatch.setattr(fast.backend, "buckets", Buckets(fast.backend.device))
    for count in (1, 8, 30, 1):
        fast.predict(REQUESTS[:count])
        assert len(fast.backend.buckets.kept) <= 2


def test_a_network_that_answers_nan_is_refused(pair, monkeypatch):
    _, fast = pair
    nothing = torch.full((64, len(fast.config.quantiles)), float("nan"))
    monkeypatch.setattr(
        fast.backend.engine.ops, "head", lambda x, n, cu, rows, w: nothing[: len(rows.sequence)]
    )
    with pytest.raises(BundleError, match="no numbers"):
        fast.predict(REQUESTS[:2])


def test_without_a_gpu_torch_answers_and_one_warning_says_why(tiny, monkeypatch):
    monkeypatch.setattr(mope.kernels, "missing", lambda: "no GPU is at hand")
    with pytest.warns(RuntimeWarning, match="no GPU is at hand, so the torch backend answers") as caught:
        bundle = MoPE.from_pretrained(tiny, backend="triton")
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the line to change is the caller's
    assert bundle.backend.name == "torch"
    assert bundle.predict(REQUESTS[0]).tokens >= 0


def test_without_triton_the_reason_says_so(monkeypatch):
    monkeypatch.setattr(mope.kernels, "find_spec", lambda name: None)
    assert mope.kernels.missing() == "Triton is not installed"


def test_where_kernels_can_run_the_packed_backend_is_opened(tiny, monkeypatch):
    monkeypatch.setattr(backends, "_no_triton", lambda: "")
    monkeypatch.setattr(triton_backend, "_fused", lambda: reference)
    bundle = MoPE.from_pretrained(tiny, backend="triton")
    assert isinstance(bundle.backend, TritonBackend)
    assert isinstance(bundle.backend, backends.Packed)
    assert bundle.backend.has(ENCODER_ROUTER)
    assert not isinstance(MoPE.from_pretrained(tiny, backend="torch").backend, backends.Packed)
