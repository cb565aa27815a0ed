"""How fast the simulator is, and what memory a long run takes. Numbers to report, never to test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mope.bench.scheduler import median_interval
from mope.sim.run import RunConfig, simulate_in
from mope.sim.scenario import Scenario, load_scenario

SUITE = "vtc/overload"  # S-LoRA's loop, 1,620 requests in 360 seconds
# S-LoRA's loop, with a queue that grows for ever; chunked prefill at nine tenths of what the server can do.
LONG = ("vtc/overload", "paper/stochastic")
POLICIES = ("fcfs", "vtc", "equinox")
REQUESTS = 100_000
REPEATS = 5
PAGE = 4096
Size = Callable[[], int]


def simulator_speed(
    *,
    policies: Sequence[str] = POLICIES,
    requests: int = REQUESTS,
    repeats: int = REPEATS,
    size: Size | None = None,
) -> dict[str, float]:
    """Speed of runs whose log goes to disk, exact forecasts, one core, by processor time.

    `POLICY suite_times_real`: simulated over real seconds of the overload suite, the median of `repeats` runs,
    with `_low` and `_high`. `POLICY SCENARIO requests_per_s` of one long run, and `grown_mb`: memory at its end
    less memory at a tenth of it (`size` tells bytes in use), flat where the queue is.
    """
    numbers: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for policy in policies:
            times = sorted(_times_real(Path(folder) / f"{policy}{turn}", policy) for turn in range(repeats))
            low, middle, high = median_interval(times)
            numbers |= {f"{policy} suite_times_real": middle, f"{policy} suite_times_real_low": low}
            numbers[f"{policy} suite_times_real_high"] = high
            for name in LONG:
                found = _long(Path(folder) / f"{policy}-long", policy, name, requests, size or resident)
                numbers |= {f"{policy} {name} {key}": value for key, value in found.items()}
    return numbers


def _times_real(folder: Path, policy: str) -> float:
    summary = simulate_in(folder, load_scenario(SUITE), RunConfig(policy, "exact"))
    return float(summary["simulated_s"] / summary["cpu_s"])


def _long(folder: Path, policy: str, name: str, requests: int, size: Size) -> dict[str, float]:
    sizes: list[tuple[int, int]] = []
    scenario = _for_ever(load_scenario(name), requests)
    summary = simulate_in(
        folder, scenario, RunConfig(policy, "exact"), lambda count, _: sizes.append((count, size()))
    )
    early = next((held for count, held in sizes if count >= requests // 10), 0)
    grown = sizes[-1][1] - early if sizes else 0
    return {"requests_per_s": requests / summary["cpu_s"], "grown_mb": grown / 1e6}


def _for_ever(scenario: Scenario, requests: int) -> Scenario:
    return replace(scenario, duration_s=float("inf"), requests=requests, draws="own")


def resident() -> int:
    """Bytes of memory this process has in use; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE
    except OSError:
        return 0
