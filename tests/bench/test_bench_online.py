from __future__ import annotations

import itertools

import pytest

from mope.bench import online
from mope.bench.online import online_latency


def test_a_call_takes_the_clocks_time_over_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "BATCH", 20)
    ticks = itertools.count()
    numbers = online_latency(repeats=2, clock=lambda: float(next(ticks)))
    names = [
        f"{who}{what}_{level}_us"
        for who in ("", "clients_")
        for what in ("observe", "correct")
        for level in ("p50", "p99")
    ]
    assert numbers == dict.fromkeys(names, pytest.approx(1e6 / 20))
