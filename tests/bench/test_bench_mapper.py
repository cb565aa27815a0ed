from __future__ import annotations

from itertools import count

import pytest

from mope import MoPE
from mope.bench.mapper import HARDWARE, mapper_latency


def test_the_numbers_are_what_the_clock_said() -> None:
    ticks = count()
    numbers = mapper_latency(MoPE.from_pretrained(), repeats=4, clock=lambda: float(next(ticks)))
    # Each call lies between two ticks of one second: a million microseconds, for one or for a thousand requests.
    assert len(numbers) == 3 * len(HARDWARE)
    for name, value in numbers.items():
        assert value == pytest.approx(1e3 if "batched" in name else 1e6)
