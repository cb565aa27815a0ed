"""Fits the hardware profiles that ship from public layer tables, and writes docs/profiles.md with its plots.

    python scripts/profiles.py TABLES [--output mope/mapper/profiles] [--docs docs]

TABLES is a folder with the tables of microsoft/vidur (MIT), ai-dynamo/aiconfigurator (Apache-2.0), casys-kaist/
LLMServingSim (MIT) and Mutinifni/splitwise-sim (MIT) in sub-folders
vidur, aiconfigurator, llmservingsim, splitwise.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from profiles_report import report

from mope.mapper import gpus
from mope.mapper.build import Measured, build_profile
from mope.mapper.fit import fit_overhead
from mope.mapper.plots import draw_fit
from mope.mapper.points import DecodePoints, LayerPoints, Points, PrefillPoints
from mope.mapper.profile import Profile, profile_name
from mope.mapper.shapes import ModelShape
from mope.mapper.steps import Direct, Layered
from mope.mapper.tables import read_overhead, read_points

VIDUR = "microsoft/vidur, data/profiling, commit 7d47513363"
AIC = "ai-dynamo/aiconfigurator, commit 095f58a51c"
SIM = "casys-kaist/LLMServingSim, commit 5daddb21a5, vLLM 0.19.0"


@dataclass(frozen=True)
class Job:
    """One profile: model, GPU, GPUs, and for each part the table it is fitted from (glob below the folder)."""

    model: str
    gpu: str
    tp: int
    layers: str
    decode: str = ""
    prefill: str = ""
    link: str = ""
    overhead: tuple[str, str] | None = None


A100, H100 = "aiconfigurator/a100_sxm/", "aiconfigurator/h100_sxm/"
TRT, VLLM = A100 + "trtllm-1.0.0_{}_attention_perf.parquet", A100 + "vllm-0.14.0_{}_attention_perf.parquet"
VLLM_H100 = H100 + "vllm-0.19.0_{}_attention_perf.parquet"
OWN_70B = "vidur/a100_Llama-2-70b-hf_tp2_attention.csv.gz"
CPU = "vidur/a100_cpu_overheads.csv.gz"


def jobs() -> list[Job]:
    """What ships from layer tables. Attention is measured per head count, so a cut model has a table of its own."""
    found = []
    for tp in (1, 2, 4, 8):
        small = TRT if tp < 4 else VLLM  # vLLM's table ends at 8 key-value heads
        large = OWN_70B if tp == 2 else VLLM
        found += [
            _a100("Llama-2-7b", "Llama-2-7b-hf", tp, small, "Llama-2-7b-hf"),
            _a100("Llama-2-70b", "Llama-2-70b-hf", tp, large, "Llama-2-70b-hf"),
            _a100("Llama-3-8B", "Meta-Llama-3-8B", tp, VLLM, "Llama-2-7b-hf"),
            _h100("Llama-2-7b", tp),
        ]
    for model, tps in (("Llama-2-7b", (1, 2, 4, 8)), ("Llama-2-70b", (4, 8))):
        found += [Job(model, "a40", tp, f"vidur/a40_{model}-hf_mlp.csv.gz") for tp in tps]
    for gpu, folder, tps in (("rtx-4090", "RTX4090", (1,)), ("rtx-pro-6000", "RTXPRO6000", (1, 2))):
        home = f"llmservingsim/{folder}_Llama-3.1-8B/"
        for tp in tps:
            own = f"{home}tp{tp}_attention.csv.gz"
            found.append(Job("Llama-3.1-8B", gpu, tp, f"{home}tp{tp}_dense.csv.gz", own, own))
    return found


def _a100(model: str, table: str, tp: int, kernel: str, cpu: str) -> Job:
    link = "vidur/network_a100_dgx_all_reduce.csv.gz"
    return Job(model, "a100-80g", tp, f"vidur/a100_{table}_mlp.csv.gz", kernel, kernel, link, (CPU, cpu))


def _h100(model: str, tp: int) -> Job:
    decode = VLLM_H100 if tp >= 4 else ""
    link = "vidur/network_h100_dgx_all_reduce.csv.gz"
    return Job(model, "h100-sxm", tp, f"vidur/h100_{model}-hf_mlp.csv.gz", decode, VLLM_H100, link)


def read(job: Job, tables: Path) -> list[Measured]:
    """The points of a job, each with its origin."""
    shape = ModelShape.known(job.model)
    heads, kv_heads = shape.heads_per_gpu(job.tp), shape.kv_heads_per_gpu(job.tp)
    wanted: list[tuple[str, type[Points] | None]] = [
        (job.layers, LayerPoints),
        (job.decode.format("generation"), DecodePoints),
        (job.prefill.format("context"), PrefillPoints),
        (job.link if job.tp > 1 else "", None),
    ]
    found = []
    for path, kind in wanted:
        if not path:
            continue
        points = read_points(tables / path, tp=job.tp, heads=heads, kv_heads=kv_heads)
        chosen = next(item for item in points if kind is None or isinstance(item, kind))
        found.append(Measured(chosen, f"{path} ({_home(path)})"))
    return found


def _home(path: str) -> str:
    return {"vidur": VIDUR, "aiconfigurator": AIC, "llmservingsim": SIM}[path.partition("/")[0]]


def fit(job: Job, measured: list[Measured], tables: Path, done: dict[str, Profile]) -> Profile:
    """One profile; parts without a table of their own come from the nearest one done before."""
    shape, gpu = ModelShape.known(job.model), gpus.known(job.gpu)
    donor = _donor(job, done)
    profile = build_profile(shape, gpu, job.tp, measured, donor=donor)
    if job.overhead:
        path, model = job.overhead
        assert isinstance(profile.law, Layered)
        law = replace(profile.law, overhead=fit_overhead(*read_overhead(tables / path, model)))
        origin = dict(profile.origin) | {"overhead": f"{path}, rows of {model} ({VIDUR})"}
        profile = replace(profile, law=law, origin=origin)
    return profile


def _donor(job: Job, done: dict[str, Profile]) -> Profile | None:
    """Attention of Llama-2-7b on one and two H100 is not in the tables: that of four, which is, stands in."""
    same = [p for p in done.values() if p.gpu.name.lower() == job.gpu and p.shape.name == job.model]
    return max(same, key=lambda profile: -profile.tp, default=None)


def a10g() -> Profile:
    """Llama-7b on A10G: the published lines through measured steps, taken over as they stand."""
    shape, gpu = ModelShape.known("Llama-2-7b"), gpus.known("a10g")
    law = Direct(
        step=16.3e-3, sequence=0.245e-3, context=2.02e-6, prefill_step=0.061e-3, prefill_token=0.2143e-3
    )
    origin = {
        "steps": "least squares through fair_bench/cost_profile.json of Ying1123/VTC-artifact, commit 192c2e2014 "
        "(Apache-2.0): 16 decode points, batch 13-138, context 5,000-9,250 tokens; below batch 13 extrapolated"
    }
    error = {"steps": {"largest residual of a decode step, ms": 4.0}}
    name = profile_name(shape, gpu, 1)
    return Profile(name, shape, gpu, 1, law, True, 0.15, origin, error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", type=Path)
    parser.add_argument("--output", type=Path, default=Path("mope/mapper/profiles"))
    parser.add_argument("--docs", type=Path, default=None)
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    done: dict[str, Profile] = {}
    measured: dict[str, list[Measured]] = {}
    order = sorted(jobs(), key=lambda job: (not job.decode, job.tp))
    for job in order:
        points = read(job, asked.tables)
        profile = fit(job, points, asked.tables, done)
        measured[profile.name] = points
        done[profile.name] = profile
        held = profile.error
        print(
            profile.name,
            {part: (e["inside"]["median"], e["inside"]["p90"]) for part, e in held.items()},
            flush=True,
        )
    published = a10g()
    for profile in (*done.values(), published):
        profile.save(asked.output / f"{profile.name}.json")
    if asked.docs is not None:
        (asked.docs / "profiles").mkdir(parents=True, exist_ok=True)
        for name, points in measured.items():
            draw_fit(done[name], points, asked.docs / "profiles" / f"{name}.png")
        (asked.docs / "profiles.md").write_text(report(done, measured, asked.tables))


if __name__ == "__main__":
    main()
