"""Predicted fairness in a real vLLM: service of tenants with short and long answers, by policy and forecast.

    python scripts/vllm_fairness.py --output build/vllm-fairness --seeds 5

Four tenants with more requests than can be served: two ask for short answers, two for long ones. The engine is a
real vLLM on a CPU, stepped by hand for `STEPS` steps; what it runs has random weights, so answers get their lengths
from the script, and the adapter is not told them. Service is prompt + 2 x output tokens, as in VTC; the difference is
that between the tenant served most and the one served least. Needs the environment of `make test-vllm`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import vllm_lab as lab

STEPS = 1500
SEATS = 12
PROMPT = (16, 64)
TENANTS = {"short-1": 60, "short-2": 60, "long-1": 300, "long-2": 300}  # mean tokens of an answer
REQUESTS = {60: 140, 300: 60}
SIGMA = 0.6  # of the logarithm of an answer's length
LONGEST = 900
MAE = 80.0
ROWS = [
    ("vLLM, first come first served", "", "none"),
    ("`vtc`", "vtc", "none"),
    ("`vtc:forecast`", "vtc:forecast", "exact"),
    ("`vtc:forecast`", "vtc:forecast", "noisy"),
    ("`vtc:forecast`", "vtc:forecast", "none"),
    ("`equinox`", "equinox", "exact"),
    ("`equinox`", "equinox", "noisy"),
    ("`equinox`", "equinox", "none"),
    ("`equinox:delta=0`", "equinox:delta=0", "exact"),
    ("`equinox:delta=0`", "equinox:delta=0", "noisy"),
    ("`equinox:delta=0`", "equinox:delta=0", "none"),
]
T_95 = {
    2: 12.71,
    3: 4.30,
    4: 3.18,
    5: 2.78,
    6: 2.57,
    7: 2.45,
    8: 2.36,
    9: 2.31,
    10: 2.26,
}  # by number of seeds


def workload(seed: int, forecast: str) -> list[lab.Job]:
    """The requests of a seed in the order they came, all waiting from the start; the same for each forecast."""
    lengths, noise = random.Random(seed), random.Random(seed + 1000)
    jobs = []
    for tenant, mean in TENANTS.items():
        for _ in range(REQUESTS[mean]):
            tokens = int(lengths.lognormvariate(0, SIGMA) * mean / 2.718281828 ** (SIGMA**2 / 2))
            tokens = min(max(tokens, 2), LONGEST)
            wrong = tokens + noise.gauss(0, MAE * sqrt(3.141592653589793 / 2))
            foreseen = {"none": None, "exact": float(tokens), "noisy": max(wrong, 1.0)}[forecast]
            jobs.append(lab.Job(tenant, lengths.randint(*PROMPT), tokens, forecast=foreseen))
    lengths.shuffle(jobs)
    return jobs


def hidden(policy: str) -> Callable[..., Any] | None:
    """Makes the scheduler of a policy, to which every request may be `LONGEST` tokens long."""
    if not policy:
        return None
    make = lab.fair(policy=policy)

    def blind(**named: Any) -> Any:
        scheduler = make(**named)
        arrive = scheduler.ledger.controller.arrive
        scheduler.ledger.controller.arrive = lambda one, tenant, tokens, most, **more: arrive(
            one, tenant, tokens, LONGEST, **more
        )
        return scheduler

    return blind


def measure(engine: Any, policy: str, forecast: str, seed: int, steps: int) -> dict[str, float]:
    """One run: difference of service and Jain's index at the end, the mean difference, tokens made."""
    jobs = workload(seed, forecast)
    with lab.scheduler(engine, hidden(policy)):
        log = lab.run(engine, jobs, keep_progress=True, prefix=f"s{seed}", most_steps=steps)
    gaps = []
    served: dict[str, float] = {}
    for made in log.progress:
        served = dict.fromkeys(TENANTS, 0.0)
        for place, tokens in made.items():
            served[jobs[place].tenant] += jobs[place].prompt + 2 * tokens
        gaps.append(max(served.values()) - min(served.values()))
    found = list(served.values())
    errors = [abs(job.forecast - job.tokens) for job in jobs if job.forecast is not None]
    return {
        "difference": gaps[-1],
        "mean_difference": statistics.fmean(gaps),
        "largest_difference": max(gaps),
        "jain": sum(found) ** 2 / (len(found) * sum(x * x for x in found)),
        "tokens": float(sum(log.progress[-1].values())),
        "mae": statistics.fmean(errors) if errors else float("nan"),
        "finished_short": sum(jobs[n].tenant.startswith("short") for n in log.last),
    }


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval (Student)."""
    if len(values) < 2:
        return values[0], float("nan")
    return statistics.fmean(values), T_95[len(values)] * statistics.stdev(values) / sqrt(len(values))


def main() -> None:
    """Run every row for every seed, write JSON and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 11))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--model", type=Path, default=Path("build/vllm-model"))
    asked = parser.parse_args()
    engine = lab.make_engine(lab.tiny_model(asked.model), max_num_seqs=SEATS)
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "policy": policy or "stock",
            "forecast": forecast,
            "runs": known(asked, policy, forecast),
        }
        for name, policy, forecast in ROWS
    ]
    for seed in range(asked.seeds):
        for row, (_, policy, forecast) in zip(rows, ROWS, strict=True):
            if len(row["runs"]) <= seed:
                row["runs"].append(measure(engine, policy, forecast, seed, asked.steps))
                print(seed, row["policy"], forecast, row["runs"][-1], file=sys.stderr)
    lab.write(asked.output, {"steps": asked.steps, "seats": SEATS, "rows": rows}, table(rows))


def known(asked: argparse.Namespace, policy: str, forecast: str) -> list[dict[str, float]]:
    """Runs of a row that an earlier call left in the output folder: runs repeat exactly."""
    path = asked.output / "results.json"
    found = json.loads(path.read_text()) if path.is_file() else {"steps": 0}
    if found["steps"] != asked.steps or found["seats"] != SEATS:
        return []
    wanted = (policy or "stock", forecast)
    rows = [row["runs"] for row in found["rows"] if (row["policy"], row["forecast"]) == wanted]
    return list(rows[0][: asked.seeds]) if rows else []


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, then Equinox beside VTC, seed by seed."""
    lines = [
        "| policy | forecasts | difference of service | on the way, mean | Jain's index | output tokens |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        words = []
        for name, digits in (("difference", 0), ("mean_difference", 0), ("jain", 4), ("tokens", 0)):
            mean, half = interval([run[name] for run in row["runs"]])
            words.append(f"{mean:,.{digits}f} ± {half:,.{digits}f}")
        lines.append(f"| {row['name']} | {row['forecast']} | {' | '.join(words)} |")
    lines += [
        "",
        "| forecasts | `equinox` less `vtc`, difference of service | less `vtc:forecast` |",
        "|---|---|---|",
    ]
    by = {(row["policy"], row["forecast"]): row["runs"] for row in rows}
    for forecast in ("exact", "noisy", "none"):
        ours = by["equinox", forecast]
        words = []
        for theirs in (by["vtc", "none"], by["vtc:forecast", forecast]):
            pairs = [a["difference"] - b["difference"] for a, b in zip(ours, theirs, strict=True)]
            words.append("{:+,.0f} ± {:,.0f}".format(*interval(pairs)))
        lines.append(f"| {forecast} | {' | '.join(words)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
