from __future__ import annotations

from itertools import count

import pytest

from mope.bench.simulator import resident, simulator_speed


def test_a_run_is_timed_and_its_memory_told() -> None:
    sizes = count(0, 3_000_000)
    numbers = simulator_speed(policies=("fcfs",), requests=300, repeats=1, size=lambda: next(sizes))
    assert set(numbers) == {
        "fcfs suite_times_real", "fcfs suite_times_real_low", "fcfs suite_times_real_high",
        "fcfs vtc/overload requests_per_s", "fcfs vtc/overload grown_mb",
        "fcfs paper/stochastic requests_per_s", "fcfs paper/stochastic grown_mb",
    }  # fmt: skip
    assert min(value for name, value in numbers.items() if "grown" not in name) > 1
    assert numbers["fcfs paper/stochastic grown_mb"] == pytest.approx(0.0)  # a short run is looked at once


def test_memory_in_use_is_bytes() -> None:
    assert resident() == 0 or 10_000_000 < resident() < 1 << 40
