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
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from types import SimpleNamespace
from typing import Any

from mope.bench.scheduler import median_interval
from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.sglang_order import FairOrder

WAITING = (1, 100, 1000)
TENANTS = (1, 10, 100, 1000)
RUNNING = 64
BURST = 16
Sort = Callable[[list[Any]], None]
Make = Callable[[str, str, int, int], Any]


def double(rid: str, tenant: str, prompt: int, forecast: int) -> Any:
    """As much of a request as the fair sort reads."""
    return SimpleNamespace(
        rid=rid, routing_key=tenant, extra_key=None, lora_id=None, priority=0, origin_input_ids=[0] * prompt,
        output_ids=[], is_retracted=False, finished_reason=None,
        sampling_params=SimpleNamespace(max_new_tokens=512, custom_params={"predicted_tokens": forecast}),
        time_stats=SimpleNamespace(forward_entry_time=0.0),
    )  # fmt: skip


def real(rid: str, tenant: str, prompt: int, forecast: int) -> Any:
    """SGLang's own."""
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    params = SamplingParams(max_new_tokens=512, custom_params={"predicted_tokens": forecast})
    return Req(rid, "", array("q", [0] * prompt), params, routing_key=tenant)


class World:
    """`waiting` requests of `tenants`, 64 running: the same life under either sort."""

    def __init__(self, sort: Sort, make: Make, waiting: int, tenants: int) -> None:
        self.make, self.sort, self.tenants, self.number = make, sort, tenants, 0
        self.rng = random.Random(0)
        self.waiting = [self.new() for _ in range(waiting + RUNNING)]
        self.running: list[Any] = []
        for _ in range(RUNNING):
            self.call()
            self.start()

    def new(self) -> Any:
        self.number += 1
        tenant = f"t{self.number % self.tenants}"
        return self.make(f"r{self.number}", tenant, self.rng.randrange(10, 1000), self.rng.randrange(1, 400))

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
        self.waiting.append(self.new())


@contextmanager
def engine() -> Iterator[tuple[Sort, Make, str]]:
    """SGLang's own sort, requests and version, where it is installed."""
    try:
        found = version("sglang")
    except PackageNotFoundError:
        yield (lambda waiting: None), double, ""
        return
    from sglang.srt.managers.schedule_policy import SchedulePolicy
    from sglang.srt.mem_cache.radix_cache import RadixCache
    from sglang.test.test_utils import published_topology

    with published_topology(device="cpu", attention_backend="torch_native"):
        policy = SchedulePolicy("fcfs", RadixCache.create_simulated(), False, False, False)
        yield policy.calc_priority, real, found


def measure(stock: Sort, make: Make, waiting: int, tenants: int, calls: int) -> dict[str, float]:
    """Medians over the calls with their 95 % intervals by ranks; worlds in turns, so what slows one slows both."""
    fair = FairOrder(Controller(Settings()))

    def both(requests: list[Any]) -> None:
        stock(requests)
        fair.sort(requests)

    worlds = {"stock": World(stock, make, waiting, tenants), "fair": World(both, make, waiting, tenants)}
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
    sizes = [(waiting, tenants) for waiting in WAITING for tenants in TENANTS if tenants <= waiting]
    with engine() as (stock, make, found):
        rows = [measure(stock, make, waiting, tenants, calls) for waiting, tenants in sizes]
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    machine |= {"load": round(os.getloadavg()[0], 1)}
    print(
        json.dumps({"sglang": found, "calls": calls, "running": RUNNING, **machine, "rows": rows}, indent=1)
    )


if __name__ == "__main__":
    main()
