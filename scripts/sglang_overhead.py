"""What the fair order adds to one call of SGLang's sort: stock and fair side by side, one JSON document.

`python scripts/sglang_overhead.py [CALLS]` in an environment with SGLang sorts with its own `SchedulePolicy` (fcfs);
elsewhere a function that does nothing stands for it, which fcfs is. Each call starts one request, and one comes.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from types import SimpleNamespace
from typing import Any

from mope.bench_scheduler import median_interval
from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.sglang_order import FairOrder

WAITING = (1, 100, 1000)
TENANTS = (1, 10, 100, 1000)
RUNNING = 64
BURST = 16
Sort = Callable[[list[Any]], None]


def request(rng: random.Random, number: int, tenant: int) -> Any:
    """As much of a request as both sorts read."""
    return SimpleNamespace(
        rid=f"r{number}", routing_key=f"t{tenant}", extra_key=None, lora_id=None, priority=0,
        origin_input_ids=[0] * rng.randrange(10, 1000), output_ids=[], is_retracted=False, finished_reason=None,
        sampling_params=SimpleNamespace(
            max_new_tokens=512, custom_params={"predicted_tokens": rng.randrange(1, 400)}
        ),
        time_stats=SimpleNamespace(forward_entry_time=0.0, wait_queue_entry_time=0.0), finished=lambda: False,
    )  # fmt: skip


class World:
    """`waiting` requests of `tenants`, 64 running: the same life under either sort."""

    def __init__(self, sort: Sort, waiting: int, tenants: int) -> None:
        self.rng, self.sort, self.tenants, self.number = random.Random(0), sort, tenants, 0
        self.waiting = [self.new() for _ in range(waiting + RUNNING)]
        self.running: list[Any] = []
        for _ in range(RUNNING):
            self.call()
            self.start()

    def new(self) -> Any:
        self.number += 1
        return request(self.rng, self.number, self.number % self.tenants)

    def call(self) -> float:
        """Microseconds of one sort."""
        begun = time.perf_counter()
        self.sort(self.waiting)
        return (time.perf_counter() - begun) * 1e6

    def start(self) -> None:
        one = self.waiting.pop(0)
        one.time_stats.forward_entry_time = 1.0
        self.running.append(one)

    def live(self) -> None:
        """The first starts, every running one makes a token, the oldest ends, another comes."""
        self.start()
        for one in self.running:
            one.output_ids.append(0)
        done = self.running.pop(0)
        done.finished_reason = True
        done.finished = lambda: True
        self.waiting.append(self.new())


def stock_sort() -> tuple[Sort, str]:
    """SGLang's own where it is installed."""
    try:
        found = version("sglang")
    except PackageNotFoundError:
        return (lambda waiting: None), ""
    from sglang.srt.managers.schedule_policy import SchedulePolicy
    from sglang.srt.mem_cache.radix_cache import RadixCache
    from sglang.test.test_utils import published_topology

    published_topology(device="cpu", attention_backend="torch_native").__enter__()
    policy = SchedulePolicy("fcfs", RadixCache.create_simulated(disable=True), False, False, False)
    return policy.calc_priority, found


def measure(stock: Sort, waiting: int, tenants: int, calls: int) -> dict[str, float]:
    """Medians over the calls with their 95 % intervals by ranks; worlds in turns, so what slows one slows both."""
    fair = FairOrder(Controller(Settings()))

    def both(requests: list[Any]) -> None:
        stock(requests)
        fair.sort(requests)

    worlds = {"stock": World(stock, waiting, tenants), "fair": World(both, waiting, tenants)}
    taken: dict[str, list[float]] = {name: [] for name in worlds}
    for _ in range(calls // BURST):
        for name, world in worlds.items():
            for _ in range(BURST):
                world.live()
                taken[name].append(world.call())
    found: dict[str, float] = {"waiting": waiting, "tenants": min(tenants, waiting)}
    for name, times in taken.items():
        low, middle, high = median_interval(times)
        found |= {
            f"{name}_us": middle,
            f"{name}_low_us": low,
            f"{name}_high_us": high,
            f"{name}_best_us": min(times),
        }
    return {name: round(value, 2) for name, value in found.items()} | {
        "added_us": round(median(taken["fair"]) - median(taken["stock"]), 2)
    }


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    stock, found = stock_sort()
    rows = [
        measure(stock, waiting, tenants, calls)
        for waiting in WAITING
        for tenants in TENANTS
        if tenants <= waiting
    ]
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    machine |= {"load": round(os.getloadavg()[0], 1)}
    print(
        json.dumps({"sglang": found, "calls": calls, "running": RUNNING, **machine, "rows": rows}, indent=1)
    )


if __name__ == "__main__":
    main()
