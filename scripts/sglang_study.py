"""Predicted fairness in a real SGLang on a CPU: two tenants of long answers, and behind them two of short ones.

    python scripts/sglang_study.py PYTHON_OF_THE_ENGINE OUT.json [SEEDS]

`make test-sglang` builds the engine's environment (build/sglang/bin/python). Each configuration is one engine, which
plays every seed with tenants of fresh names. What was served is read pass by pass: service is prompt + 2 x output
tokens (VTC's), looked at while all four tenants have requests waiting. docs/sglang.md has the table.
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

WORLD = Path(__file__).parents[1] / "tests" / "serving_adapters" / "sglang" / "world.py"
TENANTS = {"shortA": (8, 40), "shortB": (8, 40), "longA": (100, 300), "longB": (100, 300)}
TOKENS = 1600  # of output for each tenant, about
SLOTS = 8
BOUND = 600  # max_new_tokens of every request: nobody reads a length off it
MAE = 80.0
STUDENT = {4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}  # 97.5 % of t with n - 1 degrees of freedom
CONFIGURATIONS = (
    ("equinox", "exact"), ("vtc", "absent"), ("equinox", "noisy"), ("equinox", "absent"),
    ("vtc:forecast", "exact"), ("vtc:forecast", "noisy"), ("equinox:delta=0", "exact"), ("", "absent"),
)  # fmt: skip


def requests(seed: int, forecast: str) -> list[dict[str, Any]]:
    """One round, in the order it is sent: the long tenants' requests, shuffled, then the short ones'."""
    rng, found = random.Random(seed), []
    for tenant, (low, high) in TENANTS.items():
        made = number = 0
        while made < TOKENS:
            tokens = rng.randint(low, high)
            rid = f"{tenant}{seed}/{number}"
            found.append({"rid": rid, "tenant": f"{tenant}{seed}", "tokens": tokens, "bound": BOUND})
            made, number = made + tokens, number + 1
    rng.shuffle(found)
    found.sort(key=lambda one: one["tenant"].startswith("short"))
    lengths = [one["tokens"] for one in found]
    said = {"exact": list(map(float, lengths)), "noisy": noisy(lengths, 1000 + seed)}.get(forecast)
    return (
        found
        if said is None
        else [one | {"forecast": tokens} for one, tokens in zip(found, said, strict=True)]
    )


def noisy(lengths: list[int], seed: int) -> list[float]:
    """Lengths with Laplace noise, at least 1 token, the noise as wide as makes them 80 tokens off in the mean."""
    rng = random.Random(seed)
    draws = [rng.expovariate(1) * rng.choice((-1, 1)) for _ in lengths]
    narrow, wide, said = 0.0, 100 * MAE, list[float]()
    for _ in range(60):
        scale = (narrow + wide) / 2
        said = [max(1.0, tokens + scale * draw) for tokens, draw in zip(lengths, draws, strict=True)]
        off = fmean(abs(one - tokens) for one, tokens in zip(said, lengths, strict=True))
        narrow, wide = (scale, wide) if off < MAE else (narrow, scale)
    return said


def play(python: str, policy: str, forecast: str, seeds: list[int]) -> dict[str, Any]:
    """All seeds in one engine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rounds = [{"mixed": requests(seed, forecast), "settle_s": 5} for seed in seeds]
        server = {"max_running_requests": SLOTS, "max_total_tokens": 8192}
        plan = {"model": str(folder / "model"), "rounds": rounds, "server": server}
        (folder / "plan.json").write_text(json.dumps(plan))
        fair = {"MOPE_SGLANG": "1", "MOPE_EQUINOX": json.dumps({"policy": policy})} if policy else {}
        paths = {"PYTHONPATH": str(WORLD.parent / "site"), "MOPE_WATCH": name, "HF_HUB_OFFLINE": "1"}
        command = [python, str(WORLD), str(folder / "plan.json"), str(folder / "found.json")]
        with open(folder / "log", "w") as log:
            subprocess.run(
                command, env={**os.environ, **paths, **fair, "WORLD_LIMIT_S": "1500"}, check=True,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        found: dict[str, Any] = json.loads((folder / "found.json").read_text())
        return found


def fairness(passes: list[str], seed: int, sent: list[dict[str, Any]]) -> dict[str, float]:
    """Of one round: gaps of service and Jain's index while all tenants had requests waiting, and its passes."""
    names = [f"{tenant}{seed}" for tenant in TENANTS]
    waiting = {name: sum(one["tenant"] == name for one in sent) for name in names}
    served, gaps, length, index = dict.fromkeys(names, 0.0), list[float](), 0, 0.0
    for line in passes:
        parts = dict(part.split("=") for part in line.split())
        if parts.keys().isdisjoint(names):
            continue
        length += 1
        if min(waiting.values()) <= 0:  # the rest is no choice any more
            continue
        for name, tokens in parts.items():
            prompt, output = map(int, tokens.split("+"))
            served[name] += prompt + 2 * output
            waiting[name] -= output if prompt else 0
        gaps.append(max(served.values()) - min(served.values()))
        index = sum(served.values()) ** 2 / (len(served) * sum(tokens**2 for tokens in served.values()))
    return {"gap_mean": fmean(gaps), "gap_max": max(gaps), "jain": index, "passes": float(length)}


def interval(values: list[float]) -> dict[str, float]:
    """Mean and the half width of its 95 % interval by Student's t over the seeds."""
    half = STUDENT[len(values)] * stdev(values) / len(values) ** 0.5
    return {"mean": round(fmean(values), 4), "half": round(half, 4)}


def waits(ended: dict[str, list[int]], seed: int, start: int) -> dict[str, float]:
    """Mean pass in which the requests of short and of long tenants ended."""
    found = {}
    for kind in ("short", "long"):
        steps = [step for rid, (step, _, _) in ended.items() if rid.startswith(kind) and f"{seed}/" in rid]
        found[f"{kind}_end"] = fmean(steps) - start
    return found


def row(name: str, forecast: str, world: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    """One configuration: each measure with its interval."""
    rounds, start = list[dict[str, float]](), 0
    for seed in seeds:
        sent = requests(seed, forecast)
        found = fairness(world["served"], seed, sent)
        rounds.append(found | waits(world["ended"], seed, start))
        start += int(found["passes"])
    measures = {key: interval([one[key] for one in rounds]) for key in rounds[0]}
    off = [
        abs(one["forecast"] - one["tokens"])
        for seed in seeds
        for one in requests(seed, forecast)
        if "forecast" in one
    ]
    table = {"policy": name, "forecast": forecast, "mae": round(fmean(off), 1) if off else None}
    return {**table, "seconds": round(world["seconds"], 1), **measures}


def main(python: str, out: str, count: str = "5") -> None:
    seeds = list(range(1, int(count) + 1))
    rows: list[dict[str, Any]] = []
    version = subprocess.run(
        [python, "-c", "import importlib.metadata as m; print(m.version('sglang'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    for policy, forecast in CONFIGURATIONS:
        name = policy or "SGLang's fcfs"
        rows.append(row(name, forecast, play(python, policy, forecast, seeds), seeds))
        print(json.dumps(rows[-1]), file=sys.stderr)
        document = {
            "sglang": version,
            "seeds": seeds,
            "slots": SLOTS,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "rows": rows,
        }
        Path(f"{out}.part").write_text(json.dumps(document, indent=1) + "\n")
    Path(f"{out}.part").replace(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
