"""What single runs look like: time to first token, service and counters over time."""

from __future__ import annotations

from collections.abc import Mapping

from mope.sim.log import Log, Requests
from mope.sim.report import Curves, Page, largest, lines, service_curves, ttft_cdf
from mope.sim.run import RunConfig, build
from mope.sim.scenario import Scenario

SAMPLES = 100
Run = tuple[Requests, Curves]  # a log, and counters over time


def probe(scenario: Scenario, config: RunConfig) -> Run:
    """A run in memory with the user counters of its clients sampled until the last arrival."""
    log = Log()
    sim = build(scenario, config, log)
    end = max((one.arrival_s for one in scenario.arrivals(config.seed)), default=0.0)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    due = 0.0
    while sim.run(20):
        now = sim.events.now
        if now >= due and due <= end:
            due = now + end / SAMPLES
            for one in sim.scheduler.metrics().clients:
                xs, ys = curves.setdefault(one.client, ([], []))
                xs.append(now)
                ys.append(one.user_counter)
    return log.requests(), {name: curve for name, curve in curves.items() if any(curve[1])}


def pictures(page: Page, runs: Mapping[str, Run]) -> None:
    """The pictures of some runs of one scenario, by name."""
    cdfs = {name: ttft_cdf(log) for name, (log, _) in runs.items()}
    page.picture(lines(cdfs, "TTFT, s", "share of requests", log_x=True), "Time to first token, one seed")
    chosen = next((largest(log) for log, _ in runs.values()), [])
    for name, (log, counters) in runs.items():
        end = float(log.arrival_s.max()) if len(log) else 1.0
        drawn = lines(service_curves(log, end, chosen), "s", "weighted tokens", name)
        page.picture(drawn, f"Service received over time: {name}, one seed")
        if counters:
            kept = {one: counters.get(one, ((), ())) for one in chosen}
            page.picture(lines(kept, "s", "user counter", name), f"Counters over time: {name}, one seed")
