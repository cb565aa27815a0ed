"""One workload in Vidur and in `mope.sim`, side by side: TTFT, end-to-end latency and how long each takes.

    pip install vidur==0.0.26            # in an environment of its own, with this repository on PYTHONPATH
    python scripts/against_vidur.py PROFILES OUT.json [SPEED[:BLOCKS] ...]

Vidur's package has no profiles and fetches them from a hub. PROFILES is a folder of its published tables instead
(microsoft/vidur data/profiling, MIT): a100_Llama-2-70b-hf_mlp, a100_Llama-2-70b-hf_tp2_attention and
network_a100_dgx_{all_reduce,send_recv}, .csv.gz. The one model with attention tables there is Llama-2-70b at tensor
parallelism 2. Both simulate its Sarathi loop: chunks of 512 tokens, 128 sequences, first come first served, admission
by the prompt, the same BLOCKS of KV cache (1,024, about what two A100 have left); the workload is the arena trace
that ships, SPEED times as fast.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mope.sim.run import RunConfig, simulate_as
from mope.sim.scenario import Scenario, load_scenario
from mope.sim.server import ServerConfig

MODEL, DEVICE, NODE = "meta-llama/Llama-2-70b-hf", "a100", "a100_dgx"
HARDWARE = "llama-2-70b@2xa100-80g"
BLOCK, BLOCKS, CHUNK, SEQS, LONGEST = 16, 1024, 512, 128, 4096
TABLES = {
    "mlp": "a100_Llama-2-70b-hf_mlp",
    "attention": "a100_Llama-2-70b-hf_tp2_attention",
    "all_reduce": "network_a100_dgx_all_reduce",
    "send_recv": "network_a100_dgx_send_recv",
}
PREDICTORS = {"vidur": False, "vidur, native": True}  # its look-up of step times in Python, or in C++
SEEDS = 3  # runs of ours for a time; the log is the same


def main(profiles: Path, out: Path, loads: Sequence[str]) -> None:
    """Run both and write what came out."""
    logging.disable(logging.WARNING)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _hub(profiles, folder)
        for load in loads:
            speed, _, blocks = load.partition(":")
            scenario = _scenario(float(speed), int(blocks or BLOCKS))
            ours = _ours(scenario)
            theirs = {key: _apart(scenario, folder, native) for key, native in PREDICTORS.items()}
            rows.append({"speed": float(speed), "blocks": int(blocks or BLOCKS), **theirs, "mope": ours})
            print(json.dumps(rows[-1]))
    found = {
        "study": "vidur",
        "vidur": metadata.version("vidur"),
        "model": MODEL,
        "hardware": HARDWARE,
        "rows": rows,
    }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _scenario(speed: float, blocks: int) -> Scenario:
    found = load_scenario("paper/arena")
    assert found.trace is not None
    server = ServerConfig(
        loop="chunked",
        admission="prompt",
        step_tokens=CHUNK,
        max_seqs=SEQS,
        block=BLOCK,
        pool_tokens=BLOCK * blocks,
    )
    return replace(found, hardware=HARDWARE, server=server, trace=replace(found.trace, speed=speed))


def _ours(scenario: Scenario) -> dict[str, Any]:
    taken = []
    for _ in range(SEEDS):
        began = time.process_time()
        found = simulate_as(scenario, RunConfig("fcfs", "none"))
        taken.append(time.process_time() - began)
    log = found.log
    return _numbers(
        log.first_s - log.arrival_s, log.finish_s - log.arrival_s, min(taken), 0.0, found.summary["wall_s"]
    )


def _numbers(
    ttft: Any, latency: Any, seconds: float, training_s: float, simulated_s: float
) -> dict[str, Any]:
    found: dict[str, Any] = {"requests": len(ttft), "run_s": seconds, "training_s": training_s}
    found["times_real"] = simulated_s / seconds
    for name, values in (("ttft_s", ttft), ("latency_s", latency)):
        p50, p90, p99 = np.percentile(values, (50, 90, 99))
        found[name] = {
            "mean": float(np.mean(values)),
            "p50": float(p50),
            "p90": float(p90),
            "p99": float(p99),
        }
    return found


def _hub(profiles: Path, folder: Path) -> None:
    """The tables as Vidur's data sets lie, and its download of them turned to this folder."""
    import lzma

    from vidur.execution_time_predictor import sklearn_execution_time_predictor as predictor

    for part, names in (("compute", ("mlp", "attention")), ("network", ("all_reduce", "send_recv"))):
        (folder / part).mkdir()
        for name in names:
            text = gzip.decompress((profiles / f"{TABLES[name]}.csv.gz").read_bytes())
            (folder / part / f"{name}.csv.xz").write_bytes(lzma.compress(text, preset=1))
    (folder / "compute" / "config.json").write_text(json.dumps({"model": MODEL, "device_sku": DEVICE}))
    (folder / "network" / "config.json").write_text(json.dumps({"sku": NODE}))

    def snapshot_download(repo_id: str, **_: object) -> str:
        if repo_id in ("compute", "network"):
            return str(folder / repo_id)
        raise FileNotFoundError(f"no predictions in {repo_id}: they are made here")

    predictor.snapshot_download = snapshot_download


def _apart(scenario: Scenario, folder: Path, native: bool) -> dict[str, Any]:
    """In a process of its own: Vidur numbers its replicas once for all simulations of a process."""
    with get_context("fork").Pool(1) as pool:
        try:
            return pool.apply(_vidur, (scenario, folder, native))
        except AssertionError as error:
            # The pool hands on where it was raised as the text of the cause.
            places = [line.strip() for line in str(error.__cause__).splitlines() if "assert " in line]
            return {"failed": f"AssertionError: {places[-1] if places else error}"}


def _vidur(scenario: Scenario, folder: Path, native: bool) -> dict[str, Any]:
    from vidur.config import (
        CacheConfig,
        ClusterConfig,
        MetricsConfig,
        RandomForrestExecutionTimePredictorConfig,
        ReplicaConfig,
        SarathiSchedulerConfig,
        SimulationConfig,
        TraceRequestGeneratorConfig,
    )
    from vidur.simulator import Simulator

    trace = folder / "trace.csv"
    _write_trace(scenario, trace)
    config = SimulationConfig(
        log_level="error",
        cluster_config=ClusterConfig(
            replica_config=ReplicaConfig(MODEL, 0.9, 1, 2, device=DEVICE, network_device=NODE),
            cache_config=CacheConfig(block_size=BLOCK, num_blocks=scenario.server.pool_tokens // BLOCK),
            replica_scheduler_config=SarathiSchedulerConfig(batch_size_cap=SEQS, chunk_size=CHUNK),
        ),
        request_generator_config=TraceRequestGeneratorConfig(
            trace_file=str(trace), date="day", prefill_scale_factor=1, decode_scale_factor=1, time_scale_factor=1
        ),
        execution_time_predictor_config=RandomForrestExecutionTimePredictorConfig(
            model_profiling_dataset="compute", network_profiling_dataset="network", num_training_job_threads=1,
            cache_dir=str(folder / "cache"), prediction_max_tokens_per_request=LONGEST,
            prediction_max_batch_size=SEQS, kv_cache_prediction_granularity=64,
            use_native_execution_time_predictor=native, k_fold_cv_splits=2, num_estimators=[100], max_depth=[16],
            min_samples_split=[2],
        ),
        metrics_config=MetricsConfig(
            write_metrics=False, enable_chrome_trace=False, store_plots=False, store_batch_metrics=False,
            store_utilization_metrics=False, output_dir=str(folder / "output"),
        ),
    )  # fmt: skip
    began = time.process_time()
    simulator = Simulator(config)
    made = time.process_time()
    requests = [event._request for _, event in simulator._event_queue]
    simulator.run()
    ended = time.process_time()
    ttft = np.array([one.prefill_completed_at - one.arrived_at for one in requests])
    latency = np.array([one.completed_at - one.arrived_at for one in requests])
    return _numbers(ttft, latency, ended - made, made - began, max(one.completed_at for one in requests))


def _write_trace(scenario: Scenario, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["Date", "Time", "PromptTokenCount", "CompletionTokenCount"])
        rows.writerows(
            ["day", one.arrival_s, one.prompt_tokens, one.output_tokens] for one in scenario.arrivals(0)
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or ["0.5"])
