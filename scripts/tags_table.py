"""Mean finish steps of an unmodified vLLM with fair tags: 40 heavy requests before 8 light ones, 4 at once.

    python scripts/tags_table.py [SEEDS]      in the environment of `make test-vllm`

Forecasts exact, with Laplace noise of MAE 80 tokens (5 seeds and a 95 % t-interval by default), and absent.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev

sys.path.insert(0, str(Path(__file__).parent))
import vllm_lab as lab

from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tags import FairTagger
from mope.types import Forecast, Request, Usage

MAE = 80.0
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
LENGTHS = {"heavy": 64, "light": 64}
MIXED = {"heavy": 96, "light": 16}


def jobs_of(lengths: dict[str, int]) -> list[lab.Job]:
    return [lab.Job("heavy", tokens=lengths["heavy"])] * 40 + [lab.Job("light", tokens=lengths["light"])] * 8


def run(engine: object, jobs: list[lab.Job], forecasts: str, policy: str, seed: int) -> lab.Log:
    """One world: a tag for each arrival, and a report of every token."""
    made, noise = FairTagger("vllm", Controller(Settings(policy))), random.Random(seed)
    inner, log = engine.llm_engine, lab.Log()  # type: ignore[attr-defined]
    for n, job in enumerate(jobs):
        tokens = float(job.tokens)
        if forecasts == "noisy":
            tokens = max(1.0, tokens + noise.choice((-1, 1)) * noise.expovariate(1 / MAE))
        request = Request("", id=f"t-{n}", client=job.tenant, prompt_tokens=job.prompt)
        given = None if forecasts == "absent" else Forecast.of_tokens(tokens)
        priority = made.tag(request, 0.0, given)
        inner.add_request(f"t-{n}", lab._prompt(n, job), lab._params(job), priority=priority)
    while inner.has_unfinished_requests():
        log.steps += 1
        for output in inner.step():
            n, count = int(output.request_id.split("-")[1]), len(output.outputs[0].token_ids)
            made.progress(f"t-{n}", count, float(log.steps))
            if output.finished:
                log.last[n] = log.steps
                made.finish(f"t-{n}", Usage(count), float(log.steps))
    return log


def cell(values: list[float]) -> str:
    """Mean, and a 95 % interval where the runs differ."""
    if len(set(values)) == 1:
        return f"{values[0]:.0f}"
    half = T_95[len(values)] * stdev(values) / len(values) ** 0.5
    return f"{fmean(values):.0f} ({fmean(values) - half:.0f} to {fmean(values) + half:.0f})"


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        engine = lab.make_engine(lab.tiny_model(Path(folder)))
        config = lab.made[-1]["vllm_config"].scheduler_config
        config.policy = "priority"
        print("| lengths heavy / light | policy | forecasts | heavy | light | light of FCFS | last step |")
        print("|---|---|---|---|---|---|---|")
        for lengths in (LENGTHS, MIXED):
            table(engine, lengths, seeds)


def table(engine: object, lengths: dict[str, int], seeds: int) -> None:
    jobs = jobs_of(lengths)
    with lab.scheduler(engine):
        fcfs = lab.run(engine, jobs)
    name, base = f"{lengths['heavy']} / {lengths['light']}", fcfs.mean_last(jobs, "light")
    print(
        f"| {name} | FCFS | - | {fcfs.mean_last(jobs, 'heavy'):.0f} | {base:.0f} | 1 | {max(fcfs.last.values())} |"
    )
    for policy, forecasts in (
        ("equinox", "exact"), ("equinox", "noisy"), ("equinox", "absent"), ("vtc:forecast", "exact"), ("vtc", "-"),
    ):  # fmt: skip
        logs = []
        for seed in range(seeds if forecasts == "noisy" else 1):
            with lab.scheduler(engine):
                logs.append(run(engine, jobs, forecasts, policy, seed))
        heavy, light = ([log.mean_last(jobs, who) for log in logs] for who in ("heavy", "light"))
        last = cell([float(max(log.last.values())) for log in logs])
        share = fmean(light) / base
        print(f"| {name} | `{policy}` | {forecasts} | {cell(heavy)} | {cell(light)} | {share:.2f} | {last} |")


if __name__ == "__main__":
    main()
