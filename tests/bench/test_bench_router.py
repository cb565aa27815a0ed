import itertools

import numpy as np
import pytest

from mope.bench.predictor import router_latency
from mope.errors import ConfigError
from mope.types import Request


class Recorder:
    """Stands in for a router and notes the batches it gets."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def probabilities(self, requests):
        self.sizes.append(len(requests))
        return np.zeros((len(requests), 3), np.float32)


def test_latency_is_microseconds_a_prompt():
    ticks = itertools.count(0.0, 64e-6)
    recorder = Recorder()
    got = router_latency(recorder, [Request("a")] * 3, repeats=5, clock=lambda: next(ticks))
    assert got.pop("load_1m") >= 0
    expected = {"batch_1_p50_us": 64, "batch_1_p99_us": 64, "batch_32_p50_us": 2, "batch_32_p99_us": 2}
    assert got == pytest.approx(expected)
    assert recorder.sizes == [1] * 25 + [32] * 25


def test_nothing_to_time():
    with pytest.raises(ConfigError):
        router_latency(Recorder(), [])
