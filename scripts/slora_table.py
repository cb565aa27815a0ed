"""Mean finish steps of S-LoRA's router loop: 40 heavy requests and 10 light ones, 8 running.

python scripts/slora_table.py             against the doubles of the tests
MOPE_SLORA=CHECKOUT python scripts/slora_table.py     against the real queues of S-LoRA or VTC-artifact
"""

from __future__ import annotations

import importlib
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving_adapters"))
import slora_double as double

from mope.serving_adapters.base import Controller
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.slora_adapter import make_queue

SIZES = (4000, 4000, 8)
Ask = Callable[[str, str, int, int], Any]


def real() -> tuple[Any, Any, Ask]:
    """ReqQueue, VTC's queue and a maker of requests from the checkout."""
    sys.path.insert(0, os.environ["MOPE_SLORA"])
    params = importlib.import_module("slora.server.sampling_params").SamplingParams
    req = importlib.import_module("slora.server.io_struct").Req
    queue = importlib.import_module("slora.server.router.req_queue").ReqQueue
    vtc = importlib.import_module("slora.server.router.vtc_req_queue").VTCReqQueue
    more = (["heavy", "light"], [1])
    more += ("linear",) if "cost_func" in vtc.__init__.__code__.co_varnames else ()  # type: ignore[assignment]
    ask: Ask = lambda place, name, size, most: req(place, name, [1] * size, params(max_new_tokens=most))  # noqa: E731
    return queue, lambda *sizes: vtc(*sizes, *more), ask


def crowd(ask: Ask, mixed: bool) -> list[tuple[int, Any]]:
    """Ten tokens in and 16 out each; mixed: 4 to 64 out for the heavy one, seed 0."""
    noise = random.Random(0)
    heavy = [noise.randint(4, 64) if mixed else 16 for _ in range(40)]
    found = [(0, ask("heavy", f"h{n}", 10, most)) for n, most in enumerate(heavy)]
    return found + [(0, ask("light", f"l{n}", 10, 16)) for n in range(10)]


def main() -> None:
    queue, vtc, ask = (
        real() if os.environ.get("MOPE_SLORA") else (double.ReqQueue, double.VtcReqQueue, double.Req)
    )

    def fair(policy: str) -> Any:
        return make_queue(queue, Controller(Settings(policy, clock="steps")))(*SIZES)

    print("| output of the heavy tenant | queue | heavy | light | last step |\n|---|---|---|---|---|")
    for mixed in (False, True):
        for name, made in (
            ("ReqQueue, FCFS", queue(*SIZES)), ("VTCReqQueue", vtc(*SIZES)),
            *((f"ours, `{policy}`", fair(policy)) for policy in ("equinox", "vtc:forecast", "vtc")),
        ):  # fmt: skip
            ends = double.drive(made, crowd(ask, mixed))
            heavy, light = (fmean(v for k, v in ends.items() if k[0] == who) for who in "hl")
            sizes = "4 to 64" if mixed else "16"
            print(f"| {sizes} | {name} | {heavy:.1f} | {light:.1f} | {max(ends.values())} |")


if __name__ == "__main__":
    main()
