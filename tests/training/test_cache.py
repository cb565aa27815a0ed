"""Cached hidden states are what the trunk says, to half precision, and written whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mope.predictor.config import EncoderConfig
from mope.predictor.encoder import Stack
from mope.predictor.inputs import Inputs
from mope.training import cache
from mope.training.cache import HiddenCache, fill_cache

SIZES = [3, 1, 7, 2, 5, 7]
CPU = torch.device("cpu")


@pytest.fixture
def trunk() -> Stack:
    torch.manual_seed(0)
    shape = EncoderConfig(16, 1, 2, 32, vocab_size=40, max_position_embeddings=16)
    return Stack(shape, 0, 1).eval()


@pytest.fixture
def inputs() -> Inputs:
    rng, total = np.random.default_rng(0), sum(SIZES)
    return Inputs(
        ids=rng.integers(0, 40, total).astype(np.int32),
        segments=rng.integers(0, 2, total).astype(np.int8),
        starts=np.cumsum([0, *SIZES]),
        text=np.arange(len(SIZES)),
        features=np.zeros((len(SIZES), 1), np.float32),
        model=np.zeros(len(SIZES), np.int64),
    )


def direct(
    trunk: Stack, inputs: Inputs, texts: np.ndarray[Any, Any]
) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    ids, segments, mask = inputs.padded(texts)
    with torch.inference_mode():
        out: torch.Tensor = trunk(*(torch.from_numpy(a) for a in (ids, segments, mask)))
    return out, mask


@pytest.mark.parametrize("together", [1, 4, 64])
def test_what_is_read_is_what_the_trunk_says(
    together: int, trunk: Stack, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "STEP", together)
    fill_cache(tmp_path / "states.f16", trunk, inputs, CPU, half=False)
    stored = HiddenCache(tmp_path / "states.f16", inputs.starts, 16)
    for texts in (np.arange(6), np.array([1]), np.array([4, 0, 2])):
        want, mask = direct(trunk, inputs, texts)
        got = stored.read(texts, mask)
        seen = torch.from_numpy(mask).bool()
        assert got.shape == want.shape
        assert (got - want)[seen].abs().max() < 2e-3  # fp16 holds numbers up to 4 to 2**-9
        assert not got[~seen].any()


def test_the_file_is_exactly_the_tokens(trunk: Stack, inputs: Inputs, tmp_path: Path):
    fill_cache(tmp_path / "states.f16", trunk, inputs, CPU, half=True)
    assert (tmp_path / "states.f16").stat().st_size == sum(SIZES) * 16 * 2
    assert [p.name for p in tmp_path.iterdir()] == ["states.f16"]


def test_a_run_that_dies_leaves_no_cache_and_the_next_writes_it_anew(
    trunk: Stack, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "states.f16"
    fill_cache(path, trunk, inputs, CPU, half=False)
    whole = path.read_bytes()
    path.unlink()
    path.with_suffix(".partial").write_bytes(b"\xff" * 10_000)  # of an earlier run that was killed
    monkeypatch.setattr(cache, "STEP", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Stack, "forward", _dies_at(2, Stack.forward))
        with pytest.raises(OSError, match="space"):
            fill_cache(path, trunk, inputs, CPU, half=False)
    assert not path.exists()
    fill_cache(path, trunk, inputs, CPU, half=False)
    assert np.allclose(_halves(path.read_bytes()), _halves(whole), atol=2e-3)


def _halves(data: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(data, np.float16).astype(np.float32)


def _dies_at(call: int, forward: Any) -> Any:
    calls: list[int] = []

    def dying(self: Stack, *rest: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return forward(self, *rest)

    return dying
