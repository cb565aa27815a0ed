"""Which part brings what: Table 1 again on one server, a ladder from plain VTC to Equinox, and alpha against beta."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mope.sim.scenario import load_scenario
from mope.sim.study import (
    BERT,
    CHUNKED,
    EQUINOX,
    GAP,
    JAIN,
    MOPE,
    OWED,
    PLAIN,
    PRICED,
    SINGLE,
    TPS,
    TTFT,
    Tell,
    Variant,
    comparisons,
    run_all,
    table,
)

# One server that admits by the prompt alone: a predictor reaches the counters and nothing else.
TABLE_1 = (
    Variant("FCFS", "fcfs", "none", CHUNKED),
    Variant("VTC", "vtc", "none", CHUNKED),
    Variant("VTC+Single", "vtc:forecast", SINGLE, CHUNKED),
    Variant("VTC+BERT", "vtc:forecast", BERT, CHUNKED),
    Variant("VTC+MoPE", "vtc:forecast", MOPE, CHUNKED),
    Variant("VTC+oracle", "vtc:oracle", "exact", CHUNKED),
    Variant("Equinox+Single", EQUINOX, SINGLE, CHUNKED),
    Variant("Equinox+BERT", EQUINOX, BERT, CHUNKED),
    Variant("Equinox+MoPE", EQUINOX, MOPE, CHUNKED),
    Variant("Equinox+oracle", f"{EQUINOX},truth=true", "exact", CHUNKED),
    Variant("Equinox+MoPE, k_out 2", f"{EQUINOX},k_out=2", MOPE, CHUNKED),
    Variant("Equinox+MoPE, k_out 2, delta 0", "equinox:alpha=0.7,beta=0.3,delta=0,k_out=2", MOPE, CHUNKED),
)
TABLE_SCENARIOS = ("paper/overload", "paper/arena", "paper/sharegpt")
TABLE_METRICS = (f"{GAP}.max", f"{GAP}.mean", f"{GAP}.var")

# Each rung changes one thing of the one before.
LADDER = (
    Variant("VTC, plain server", "vtc", "none", PLAIN),
    Variant("+ prompts in chunks", "vtc", "none", CHUNKED),
    Variant("+ room for the predicted length", "vtc", MOPE),
    Variant("+ charged as predicted", "vtc:forecast", MOPE),
    Variant("+ Equinox's score", EQUINOX, MOPE),
    Variant("+ the true lengths", f"{EQUINOX},truth=true", "exact"),
)
LADDER_SCENARIOS = ("paper/balanced", "paper/overload")
LADDER_METRICS = (TPS, TTFT, "tpot_s.p99", JAIN, f"{GAP}.mean", f"{OWED}.max")

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BASE_ALPHA = 0.7
SWEEP_SCENARIOS = ("paper/overload", "paper/sharegpt")
SWEEP_METRICS = (TPS, TTFT, JAIN, f"{GAP}.mean", f"{PRICED}.mean")


def table_1(seeds: Sequence[int], tell: Tell) -> dict[str, Any]:
    """The service gap of every combination, and each against plain VTC and against its kin."""
    runs = run_all([load_scenario(name) for name in TABLE_SCENARIOS], TABLE_1, seeds, tell)
    pairs = [(variant.name, "VTC") for variant in TABLE_1 if variant.name != "VTC"]
    pairs += [("Equinox+MoPE", "Equinox+Single"), ("VTC+MoPE", "VTC+Single"), ("Equinox+MoPE", "VTC+MoPE")]
    return {
        "table": list(table(runs)),
        "compared": comparisons(runs, pairs, TABLE_METRICS, TABLE_SCENARIOS),
    }


def ladder(seeds: Sequence[int], tell: Tell) -> dict[str, Any]:
    """From plain VTC to Equinox one change at a time, each against the rung before."""
    runs = run_all([load_scenario(name) for name in LADDER_SCENARIOS], LADDER, seeds, tell)
    pairs = [(after.name, before.name) for before, after in pairwise(LADDER)]
    return {
        "table": list(table(runs)),
        "compared": comparisons(runs, pairs, LADDER_METRICS, LADDER_SCENARIOS),
    }


def sweep(seeds: Sequence[int], tell: Tell) -> dict[str, Any]:
    """alpha from 0.1 to 0.9, beta what is left of 1, with both forms of the resource charge; against alpha 0.7."""
    variants = [
        Variant(
            _swept(form, alpha), f"equinox:alpha={alpha},beta={1 - alpha:.1f},delta=0.1,resource={form}", MOPE
        )
        for form in ("rate", "work")
        for alpha in ALPHAS
    ]
    runs = run_all([load_scenario(name) for name in SWEEP_SCENARIOS], variants, seeds, tell)
    pairs = [
        (_swept(form, alpha), _swept(form, BASE_ALPHA))
        for form in ("rate", "work")
        for alpha in ALPHAS
        if alpha != BASE_ALPHA
    ]
    return {
        "table": list(table(runs)),
        "compared": comparisons(runs, pairs, SWEEP_METRICS, SWEEP_SCENARIOS),
    }


def _swept(form: str, alpha: float) -> str:
    return f"{form}, alpha {alpha}"
