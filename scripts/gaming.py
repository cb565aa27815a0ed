"""What a client gains by flooding, splitting, rotating names, lying and idling: the table of docs/equinox.md.

    python scripts/gaming.py [SEEDS]

A toy engine (16 slots, steps of 50 ms, memory enough), clients that always have requests waiting, prompts and
answers of 1 to 199 tokens. Each row is the mean over seeds with a 95 % interval (Student's t).
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable

from mope.equinox import FairScheduler
from mope.equinox.toy import ToyEngine
from mope.types import Forecast, Request

STEPS = 4000
SLOTS = 16
BACKLOG = 17  # more than could start in one step, so that no queue is ever empty
SIZES = (1, 200)
T95 = {5: 2.776, 10: 2.262, 20: 2.093, 30: 2.045}


class Crowd:
    """`others` honest clients and one that plays: `names(i)` is the name of its i-th request."""

    def __init__(
        self,
        policy: str,
        seed: int,
        *,
        others: int = 2,
        backlog: int = BACKLOG,
        names: Callable[[int], str] = lambda i: "player",
        groups: dict[str, str] | None = None,
        factor: float = 1.0,
        report: bool = True,
    ) -> None:
        self.scheduler = FairScheduler(policy, groups=groups)
        self.engine = ToyEngine(self.scheduler, pool=10**6, slots=SLOTS, step_s=0.05, k_out=4.0)
        self.engine.foresee = self.foresee
        self.engine.report = report
        self.names, self.factor = names, factor
        self.wanted = {"player": backlog, **{f"other{i}": BACKLOG for i in range(others)}}
        self.streams = {name: random.Random(f"{seed} {name}") for name in self.wanted}
        self.sent = dict.fromkeys(self.wanted, 0)
        self.waiting = dict.fromkeys(self.wanted, 0)
        self.owner: dict[str, str] = {}
        self.away: set[str] = set()

    def foresee(self, request: Request, truth: int) -> Forecast:
        return Forecast.of_tokens(truth * (self.factor if self.owner[request.id] == "player" else 1.0))

    def run(self, steps: int) -> Crowd:
        for _ in range(steps):
            for who, wanted in self.wanted.items():
                for _ in range(0 if who in self.away else wanted - self.waiting[who]):
                    self.send(who)
            for request_id in self.engine.tick():
                self.waiting[self.owner[request_id]] -= 1
        return self

    def send(self, who: str) -> None:
        number, rng = self.sent[who], self.streams[who]
        self.sent[who] += 1
        self.waiting[who] += 1
        request_id = f"{who}-{number}"
        self.owner[request_id] = who
        name = self.names(number) if who == "player" else who
        self.engine.send(
            Request("", request_id, name, prompt_tokens=rng.randrange(*SIZES)), rng.randrange(*SIZES)
        )

    def share(self) -> float:
        """The player's part of all service so far."""
        engine = self.engine
        mine = sum(
            engine.k_in * (engine.requests[i].prompt_tokens or 0) + engine.k_out * made
            for i, made in engine.made.items()
            if made and self.owner[i] == "player"
        )
        return mine / sum(engine.served.values())


def gain(base: Crowd, played: Crowd, steps: int = STEPS) -> float:
    """Per cent more service than without the game."""
    return 100 * (played.run(steps).share() / base.run(steps).share() - 1)


def flood(policy: str) -> Callable[[int], float]:
    return lambda seed: gain(Crowd(policy, seed), Crowd(policy, seed, backlog=10 * BACKLOG))


def split(policy: str, tied: bool = False) -> Callable[[int], float]:
    names = [f"name{i}" for i in range(100)]
    groups = dict.fromkeys(names, "player") if tied else None
    return lambda seed: gain(
        Crowd(policy, seed, backlog=100),
        Crowd(policy, seed, backlog=100, names=lambda i: names[i % 100], groups=groups),
    )


def rotate(policy: str) -> Callable[[int], float]:
    """One request at a time waiting, each under a new name."""
    return lambda seed: gain(
        Crowd(policy, seed, backlog=1), Crowd(policy, seed, backlog=1, names=lambda i: f"new{i}")
    )


def lie(policy: str, factor: float, steps: int, report: bool = True) -> Callable[[int], float]:
    return lambda seed: gain(
        Crowd(policy, seed, report=report), Crowd(policy, seed, factor=factor, report=report), steps
    )


def idle(policy: str) -> Callable[[int], float]:
    """Away for half the time, then back: the share of service in the time after, against a third."""

    def run(seed: int) -> float:
        crowd = Crowd(policy, seed)
        crowd.away = {"player"}
        crowd.run(STEPS // 2)
        before = sum(crowd.engine.served.values())
        crowd.away = set()
        crowd.run(STEPS // 2)
        everything = sum(crowd.engine.served.values())
        return 100 * (3 * crowd.share() * everything / (everything - before) - 1)

    return run


HEAD, ARRIVAL, VTC = "equinox", "equinox:latency=arrival", "vtc:forecast"
ROWS: list[tuple[str, str, Callable[[int], float]]] = [
    ("backlog times 10", HEAD, flood(HEAD)),
    ("backlog times 10", ARRIVAL, flood(ARRIVAL)),
    ("backlog times 10", VTC, flood(VTC)),
    ("one client as 100 names", HEAD, split(HEAD)),
    ("one client as 100 names, one group", HEAD, split(HEAD, tied=True)),
    ("a new name for each request, one waiting", HEAD, rotate(HEAD)),
    ("a new name for each request, one waiting", VTC, rotate(VTC)),
    ("forecasts 10 times too low, 50 s", HEAD, lie(HEAD, 0.1, STEPS // 4)),
    ("forecasts 10 times too low, 200 s", HEAD, lie(HEAD, 0.1, STEPS)),
    ("the same, told only at the end, 50 s", HEAD, lie(HEAD, 0.1, STEPS // 4, report=False)),
    ("the same, told only at the end, 200 s", HEAD, lie(HEAD, 0.1, STEPS, report=False)),
    ("forecasts 10 times too high, 200 s", HEAD, lie(HEAD, 10.0, STEPS)),
    ("away for 100 s, then 100 s of backlog", HEAD, idle(HEAD)),
    ("away for 100 s, then 100 s of backlog", "lcf", idle("lcf")),
]


def signed(value: float) -> str:
    """One decimal; no -0.0."""
    return f"{round(value, 1) + 0.0:+.1f}"


def main(seeds: int) -> None:
    """Print the table."""
    print("| game | policy | gain, % of the service without it | 95 % interval |\n|---|---|---|---|")
    for game, policy, measure in ROWS:
        values = [measure(seed) for seed in range(seeds)]
        mean = statistics.fmean(values)
        reach = T95[seeds] * statistics.stdev(values) / seeds**0.5
        print(
            f"| {game} | `{policy}` | {signed(mean)} | {signed(mean - reach)} to {signed(mean + reach)} |",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
