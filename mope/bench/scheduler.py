"""How long the scheduler takes for a request, and what it keeps of a client. Numbers to report, never to test.

One world for each policy and number of clients, all timed in turns in one run: what slows the machine slows all.
Every client has two requests waiting; each cycle submits one for the client served last, starts the next and
finishes it. Beside Equinox: a FCFS deque, and VTC with a linear scan over the active clients.
"""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from mope.equinox import FairScheduler
from mope.types import Capacity, Forecast, Request, Usage

CLIENTS = (100, 10_000, 1_000_000)
POLICIES = ("equinox", "vtc:oracle", "fcfs")
ROOM = Capacity(1e12, 1_000_000)
LENGTHS = 1000
CYCLES = 500
LINEAR_LIMIT = 10_000  # clients; beyond, a single scan takes longer than a report is worth
MANY = 100_000  # clients; beyond, only the first policy: a million take 2 GB
MEMORY_CLIENTS = 20_000


class Lane(Protocol):
    """What is timed."""

    def submit(self, request: Request, now: float, forecast: Forecast) -> None: ...
    def next(self, capacity: Capacity, now: float) -> Request | None: ...
    def finish(self, request_id: str, usage: Usage, now: float) -> None: ...


class DequeLane:
    """First come, first served, with nothing else: the least any scheduler can cost."""

    def __init__(self) -> None:
        self.waiting: deque[Request] = deque()
        self.running: dict[str, Request] = {}

    def submit(self, request: Request, now: float, forecast: Forecast) -> None:
        """To the end of the one queue."""
        self.waiting.append(request)

    def next(self, capacity: Capacity, now: float) -> Request | None:
        """From its front."""
        if not self.waiting or capacity.slots < 1:
            return None
        request = self.waiting.popleft()
        self.running[request.id] = request
        return request

    def finish(self, request_id: str, usage: Usage, now: float) -> None:
        """Forget it."""
        del self.running[request_id]


class LinearLane(DequeLane):
    """VTC as it is published: the smallest counter by looking at all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.counters: dict[str, float] = {}
        self.queues: dict[str, deque[Request]] = {}

    def submit(self, request: Request, now: float, forecast: Forecast) -> None:
        """Lift where the client had nothing waiting."""
        queue = self.queues.get(request.client)
        if queue is None:
            level = min((self.counters[name] for name in self.queues), default=0.0)
            self.counters[request.client] = max(self.counters.get(request.client, 0.0), level)
            queue = self.queues[request.client] = deque()
        queue.append(request)

    def next(self, capacity: Capacity, now: float) -> Request | None:
        """The oldest request of the client with the smallest counter, charged for its prompt."""
        if not self.queues:
            return None
        name = min(self.queues, key=self.counters.__getitem__)
        request = self.queues[name].popleft()
        if not self.queues[name]:
            del self.queues[name]
        self.counters[name] += request.prompt_tokens or 0
        self.running[request.id] = request
        return request

    def finish(self, request_id: str, usage: Usage, now: float) -> None:
        """Charge the output."""
        self.counters[self.running.pop(request_id).client] += 2 * usage.output_tokens


class World:
    """A lane with `clients` active clients, kept so by every cycle."""

    def __init__(self, lane: Lane, clients: int, seed: int) -> None:
        rng = random.Random(seed)
        self.lane, self.count, self.now = lane, 0, 0.0
        self.prompts = [rng.randrange(10, 1000) for _ in range(LENGTHS)]
        self.forecasts = [Forecast.of_tokens(rng.lognormvariate(5, 1)) for _ in range(LENGTHS)]
        self.usages = [Usage(int(rng.lognormvariate(5, 1))) for _ in range(LENGTHS)]
        self.client = "c0"
        for turn in range(2 * clients):
            self._submit(f"c{turn % clients}")

    def _submit(self, client: str) -> None:
        place = self.count % LENGTHS
        request = Request("", f"r{self.count}", client, prompt_tokens=self.prompts[place])
        self.count += 1
        self.lane.submit(request, self.now, self.forecasts[place])

    def cycle(self, times: int, clock: Callable[[], float] = time.perf_counter) -> float:
        """Microseconds of submit + next + finish, the mean of `times` cycles; requests are made beforehand."""
        lane, taken = self.lane, 0.0
        for _ in range(times):
            self.now += 1e-3
            self.count += 1
            place = self.count % LENGTHS
            request = Request("", f"r{self.count}", self.client, prompt_tokens=self.prompts[place])
            forecast, usage = self.forecasts[place], self.usages[place]
            start = clock()
            lane.submit(request, self.now, forecast)
            started = lane.next(ROOM, self.now)
            assert started is not None
            lane.finish(started.id, usage, self.now)
            taken += clock() - start
            self.client = started.client
        return taken / times * 1e6


def scheduler_latency(
    clients: Sequence[int] = CLIENTS, policies: Sequence[str] = POLICIES, *, repeats: int = 100, seed: int = 0
) -> dict[str, float]:
    """Microseconds a cycle: `NAME_CLIENTS_us` is the median of `repeats` rounds of 500 cycles.

    With `_low_us` and `_high_us`, its 95 % interval by ranks, and `_best_us`, the fastest round. `deque` and
    `linear` are the plain lanes. Ratios: `NAME_growth_us` and `NAME_growth_best_us` from the fewest to the most
    clients, `NAME_CLIENTS_over_deque`, `linear_CLIENTS_over_vtc`.
    """
    worlds: dict[str, World] = {}
    for count in clients:
        lanes: dict[str, Lane] = {"deque": DequeLane()}
        if count <= LINEAR_LIMIT:
            lanes["linear"] = LinearLane()
        for policy in policies if count <= MANY else policies[:1]:
            lanes[policy.partition(":")[0]] = FairScheduler(policy)
        for name, lane in lanes.items():
            worlds[f"{name}_{count}"] = world = World(lane, count, seed)
            if name != "linear":  # every client was served twice: counters are spread as they will be
                world.cycle(2 * count)
    gc.collect()
    gc.freeze()  # a collection is the machine's business, and all these objects are in use
    rounds: dict[str, list[float]] = {name: [] for name in worlds}
    for _ in range(repeats):
        for name, world in worlds.items():
            rounds[name].append(world.cycle(CYCLES if "linear" not in name else 5))
    gc.unfreeze()
    return _summary(rounds, clients, policies)


def _summary(
    rounds: dict[str, list[float]], clients: Sequence[int], policies: Sequence[str]
) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, taken in rounds.items():
        low, middle, high = median_interval(taken)
        numbers |= {f"{name}_us": middle, f"{name}_low_us": low, f"{name}_high_us": high}
        numbers[f"{name}_best_us"] = min(taken)
    for policy in (name.partition(":")[0] for name in policies):
        counts = [count for count in sorted(clients) if f"{policy}_{count}_us" in numbers]
        for kind in ("us", "best_us"):
            growth = numbers[f"{policy}_{counts[-1]}_{kind}"] / numbers[f"{policy}_{counts[0]}_{kind}"]
            numbers[f"{policy}_growth_{kind}"] = growth
        for count in counts:
            numbers[f"{policy}_{count}_over_deque"] = (
                numbers[f"{policy}_{count}_us"] / numbers[f"deque_{count}_us"]
            )
    for count in clients:
        if f"linear_{count}_us" in numbers and f"vtc_{count}_us" in numbers:
            numbers[f"linear_{count}_over_vtc"] = numbers[f"linear_{count}_us"] / numbers[f"vtc_{count}_us"]
    return numbers


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(low, median, high): the 95 % interval between the order statistics n/2 -+ 0.98 sqrt(n)."""
    ordered = sorted(values)
    n, reach = len(ordered), 0.98 * len(ordered) ** 0.5
    low, high = max(int(n / 2 - reach), 0), min(int(n / 2 + reach), n - 1)
    return ordered[low], (ordered[(n - 1) // 2] + ordered[n // 2]) / 2, ordered[high]


def scheduler_memory(
    clients: int | None = None, policy: str = "equinox", *, after: int = 9000
) -> dict[str, float]:
    """Bytes for each client more, requests and ids not counted: active with one request waiting; gone idle.

    Taken between half as many clients and all of them, so that what is kept whoever comes is left out. `after`
    requests of one client more follow: until what the others owe, and their ids, are behind.
    """
    clients = clients or MEMORY_CLIENTS
    few, many = _memory(clients // 2, policy, after), _memory(clients, policy, after)
    more = clients - clients // 2
    return {
        "active_client_bytes": (many[0] - few[0]) / more,
        "idle_client_bytes": (many[1] - few[1]) / more,
        "idle_clients_kept": many[2],
    }


def _memory(clients: int, policy: str, after: int) -> tuple[int, int, int]:
    """Bytes of a scheduler with these clients active, then idle and swept; the clients kept at the end."""
    requests = [Request("", f"r{i}", f"c{i}", prompt_tokens=100) for i in range(clients)]
    forecasts = [Forecast.of_tokens(50 + i % 100) for i in range(LENGTHS)]
    gc.collect()
    tracemalloc.start()
    scheduler = FairScheduler(policy)
    for i, request in enumerate(requests):
        scheduler.submit(request, i * 1e-3, forecasts[i % LENGTHS])
    active = tracemalloc.get_traced_memory()[0]
    now = clients * 1e-3
    while (request_id := scheduler.next(ROOM, now)) is not None:
        scheduler.finish(request_id.id, Usage(60), now)
    serve_on(scheduler, now, after)
    idle = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return active, idle, len(scheduler.accounts.by_name)


def serve_on(scheduler: FairScheduler, now: float, requests: int) -> None:
    """One client more goes on; then the idle are dropped."""
    for i in range(requests):
        scheduler.submit(Request("", f"on{i}", "on", prompt_tokens=100), now, Forecast.of_tokens(100))
        scheduler.next(ROOM, now)
        scheduler.finish(f"on{i}", Usage(100), now)
    scheduler.sweep(now)
