"""The same study on several machines: loads scaled to what each can do, one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mope.sim.paper import BASE_FCFS, BASE_VTC, FULL, VARIANTS
from mope.sim.scenario import Scenario, load_scenario
from mope.sim.study import (
    GAP,
    JAIN,
    OWED,
    TPS,
    TTFT,
    Tell,
    Variant,
    at_load,
    comparisons,
    one,
    run_all,
    table,
)

MACHINES = ("llama-2-7b@a10g", "llama-2-7b@a100-80g", "llama-2-7b@h100-sxm", "llama-2-70b@8xa100-40g")
HOME = "llama-2-7b@a100-80g"  # the machine whose loads the scenarios are
SCENARIOS = ("balanced", "overload")
DURATION_S = 120.0
METRICS = (TPS, TTFT, JAIN, f"{GAP}.mean", f"{OWED}.max")
CHOSEN = (FULL, "VTC", BASE_VTC, BASE_FCFS)
PAIRS = ((FULL, BASE_FCFS), (FULL, BASE_VTC), (FULL, "VTC"))


def capacity(hardware: str, mix: Scenario) -> float:
    """Tokens a second of a mix of requests by a machine that always has all of them waiting (plain FCFS, seed 0)."""
    flood = replace(at_load(replace(mix, hardware=hardware), 50.0), requests=1000)
    return float(one(flood, Variant("flood", "fcfs", "none"), 0)[TPS])


def study(machines: Sequence[str], seeds: Sequence[int], tell: Tell) -> dict[str, Any]:
    """Every machine with its capacity, its load, and Equinox against each baseline; one Holm over all rows."""
    rooms, scenarios = [], []
    for name in SCENARIOS:
        mix = replace(load_scenario(f"paper/{name}"), duration_s=DURATION_S)
        home = capacity(HOME, mix)
        for hardware in machines:
            tell(f"capacity of {hardware}")
            found = capacity(hardware, mix)
            label = f"{name} on {Path(hardware).name}"
            scenarios.append(replace(at_load(replace(mix, hardware=hardware), found / home), name=label))
            rooms.append(
                {"scenario": name, "hardware": hardware, "tokens_per_s": found, "load": found / home}
            )
    variants = [variant for variant in VARIANTS if variant.name in CHOSEN]
    runs = run_all(scenarios, variants, seeds, tell)
    return {
        "study": "hardware",
        "seeds": len(seeds),
        "capacity": rooms,
        "table": list(table(runs)),
        "compared": comparisons(runs, PAIRS, METRICS, [scenario.name for scenario in scenarios]),
    }
