"""What fair scheduling adds to a step of a real vLLM scheduler, by waiting requests and tenants.

    python scripts/vllm_overhead.py --output build/vllm-overhead

Both schedulers are made of the same engine's arguments and stepped in turn in one loop, without the model: the
outputs are made up, so that only `schedule` and `update_from_output` take time. Medians, in microseconds; steps that
start a request are a few among many, so they and arrivals are told apart.
Needs the environment of `make test-vllm`.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import vllm_lab as lab

WAITING = (1, 100, 1000)
TENANTS = (1, 10, 100, 1000)
RUNNING = 16
LENGTHS = (50, 350)  # of answers, evenly: so one step in thirteen starts a request
KINDS = ("quiet", "starting")


class Side:
    """One scheduler that is kept full: `waiting` requests wait, `RUNNING` run, one comes for each that ends."""

    def __init__(self, make: Callable[..., Any], named: dict[str, Any], waiting: int, tenants: int) -> None:
        self.scheduler = make(**named)
        self.tenants, self.number = tenants, 0
        self.forget()
        self.random = random.Random(0)
        for _ in range(waiting + RUNNING):
            self.add()

    def forget(self) -> None:
        """Begin to measure."""
        self.times: dict[str, list[int]] = {kind: [] for kind in (*KINDS, "arriving")}

    def add(self) -> None:
        """One more request, of the next tenant."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        self.number += 1
        params = SamplingParams(
            max_tokens=self.random.randint(*LENGTHS), ignore_eos=True,
            extra_args={"tenant": f"t{self.number % self.tenants}", "predicted_tokens": 200},
        )  # fmt: skip
        request = Request(f"r{self.number}", [1] * 16, params, None)
        start = perf_counter_ns()
        self.scheduler.add_request(request)
        self.times["arriving"].append(perf_counter_ns() - start)

    def step(self) -> None:
        """One step, timed; what ended is replaced."""
        from vllm.v1.outputs import ModelRunnerOutput

        scheduler = self.scheduler
        start = perf_counter_ns()
        output = scheduler.schedule()
        took = perf_counter_ns() - start
        ids = list(output.num_scheduled_tokens)
        made = ModelRunnerOutput(
            req_ids=ids, req_id_to_index={one: n for n, one in enumerate(ids)}, sampled_token_ids=[[7]] * len(ids),
            logprobs=None, prompt_logprobs_dict={}, pooler_output=[],
        )  # fmt: skip
        before = len(scheduler.requests)
        start = perf_counter_ns()
        scheduler.update_from_output(output, made)
        took += perf_counter_ns() - start
        self.times[KINDS[bool(output.scheduled_new_reqs)]].append(took)
        for _ in range(before - len(scheduler.requests)):
            self.add()


def measure(named: dict[str, Any], waiting: int, tenants: int, steps: int, policy: str) -> dict[str, Any]:
    """Medians of both sides in microseconds, by kind of step, and what ours adds."""
    makers = {"stock": lab.stock_class(named), "fair": lab.fair(policy=policy)}
    sides = {name: Side(make, named, waiting, tenants) for name, make in makers.items()}
    gc.collect()
    gc.disable()
    for number in range(steps + 50):
        if number == 50:  # warm
            for side in sides.values():
                side.forget()
        for name in ("stock", "fair") if number % 2 else ("fair", "stock"):
            sides[name].step()
    gc.enable()
    assert not sides["fair"].scheduler.ledger.controller.failures
    row: dict[str, Any] = {"waiting": waiting, "tenants": tenants, "policy": policy}
    every = {name: [took for kind in KINDS for took in side.times[kind]] for name, side in sides.items()}
    for kind in (*KINDS, "arriving", "all"):
        found = {name: every[name] if kind == "all" else side.times[kind] for name, side in sides.items()}
        medians = {name: statistics.median(times) / 1e3 for name, times in found.items()}
        row[kind] = {**medians, "added": medians["fair"] - medians["stock"], "steps": len(found["fair"])}
    return row


def main() -> None:
    """Measure all sizes, write JSON and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--policies", default="equinox,vtc")
    parser.add_argument("--model", type=Path, default=Path("build/vllm-model"))
    asked = parser.parse_args()
    engine = lab.make_engine(lab.tiny_model(asked.model), max_num_seqs=RUNNING)
    named = lab.made[-1]
    rows = []
    for policy in asked.policies.split(","):
        for waiting in WAITING:
            for tenants in TENANTS:
                if tenants <= max(waiting, 1):
                    rows.append(measure(named, waiting, tenants, asked.steps, policy))
                    print(json.dumps(rows[-1]), file=sys.stderr)
    del engine
    lab.write(asked.output, {"rows": rows, "running": RUNNING, "steps": asked.steps}, table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| policy | waiting | tenants | vLLM, any step | added | that starts one | added | an arrival | added |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = [row[kind][what] for kind in ("all", "starting", "arriving") for what in ("stock", "added")]
        words = " | ".join(f"{number:.1f}" for number in numbers)
        lines.append(f"| `{row['policy']}` | {row['waiting']:,} | {row['tenants']:,} | {words} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
