"""What a user can get wrong, through the command line: one message and exit code 2, or counted; and a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mope.cli import main
from mope.sim.log import read_log

HEAD = "arrival_s,client,prompt_tokens,output_tokens"
ROOT = Path(__file__).parents[2]


def call(*argv: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in argv])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def trace(folder: Path, *rows: str, head: str = HEAD) -> Path:
    path = folder / "t.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (("1,a,5",), "row 1: output tokens ''"),  # malformed
        (("1,a,many,5",), "row 1: prompt tokens 'many'"),
        (("5,a,1,1", "4,a,1,1"), "row 2: arrival at 4"),  # unsorted
        (("1,a,5,0",), "row 1: output tokens '0'"),  # nothing to make
        (("-1,a,5,5",), "row 1: arrival at -1"),  # before time began
        (("nan,a,5,5",), "row 1: arrival 'nan'"),
        ((), "no rows"),
    ],
)
def test_a_trace_that_cannot_be_used(
    tmp_path: Path, rows: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("simulate", trace(tmp_path, *rows), "--policy", "fcfs") == 2
    told = capsys.readouterr()
    assert says in told.err
    assert "t.csv" in told.err
    assert (told.out, "Traceback" in told.err) == ("", False)


def test_what_never_fits_is_refused_with_the_reason_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trace(tmp_path, "0,a,10,5", "1,a,900,5", "2,a,10,900")
    words = ("--policy", "fcfs", "--set", "pool_tokens=512", "--set", "max_prompt=500", "--json")
    assert call("simulate", path, *words) == 0
    summary = json.loads(capsys.readouterr().out)["runs"][0]["summary"]
    assert summary["done"] == 1
    assert summary["refused"] == {"prompt above 500 tokens": 1, "larger than the KV cache of 512 tokens": 1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("simulate", "vtc/overload", "--policy", "best"), "policy 'best'"),
        (("simulate", "vtc/overload", "--hardware", "abacus"), "abacus"),
        (("simulate", "vtc/overload", "--predictor", "prophet"), "predictor 'prophet'"),
        (("simulate", "vtc/overload", "--predictor", "shipped"), "a trace with prompts"),
        (("simulate", "vtc/overload", "--predictor", "confusion:gone.json"), "gone.json"),
        (("simulate", "vtc/overload", "--scheduler", "speed=1"), "one of bypass_limit"),
        (("simulate", "vtc/overload", "--scheduler", "bypass_limit=-1"), "bypass_limit"),
        (("simulate", "vtc/overload", "--scheduler", "quantile=2"), "quantile"),
        (("simulate", "vtc/overload", "--rate", "2"), "a trace only"),
        (("study", "paper", "--parts", "all"), "table1"),
        (("study", "paper", "--parts", ","), "--parts"),
        (("study", "paper", "--hardware", "abacus"), "abacus"),
        (("study", "hardware", "--hardware", "llama-2-7b@a10g,abacus"), "abacus"),
        (("study", "hardware", "--hardware", ","), "--hardware"),
        (("study", "search", "--output", __file__), "a folder"),
        (("study", "everything"), "everything"),
    ],
)
def test_words_that_are_not_known(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert (told.out, "Traceback" in told.err) == ("", False)


def test_scheduler_settings_reach_the_scheduler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ("0,a,10,300", "0.01,b,200,300", "0.02,c,10,5", "0.03,a,10,5")

    def finished(*words: str) -> float:
        shared = ("--policy", "fcfs", "--predictor", "exact", "--set", "pool_tokens=512", "--json")
        assert call("simulate", trace(tmp_path, *rows), *shared, *words) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["runs"][0]["summary"]["clients"]["c"]
        return float(found["latency_s"]["mean"])

    assert finished() < finished("--scheduler", "bypass_limit=0") / 2


def test_a_bundle_reads_the_prompts_of_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trace(
        tmp_path, '0,a,10,20,"Say hello, please"', "1,b,9,9,Write a long story", head=f"{HEAD},prompt"
    )
    out = tmp_path / "out"
    words = ("--policy", "vtc:forecast,equinox", "--predictor", "shipped", "--output", out, "--json")
    assert call("simulate", path, *words) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["predictor"] for run in runs] == ["table:forecasts-shipped.csv"] * 2
    lines = (out / "forecasts-shipped.csv").read_text().splitlines()
    assert lines[0].startswith("tokens,low,high,")
    said = [float(line.partition(",")[0]) for line in lines[1:]]
    assert runs[0]["summary"]["mae_tokens"] == pytest.approx((abs(said[0] - 20) + abs(said[1] - 9)) / 2)
    assert said[0] < said[1]


SLOW = """
import sys, time
from mope.sim import run
run.EVENTS, run.BETWEEN_S = 50, 0.0
real = run._some
run._some = lambda sim: (time.sleep(0.01), real(sim))[1]
from mope.cli import main
main(sys.argv[1:])
"""


def test_a_killed_command_leaves_a_log_that_can_be_read_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["simulate", "vtc/on_off_less", "--policy", "equinox", "--json", "--output"]
    folder, other = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run = folder / "runs" / "equinox~noise_80~s0"
    try:
        until = time.monotonic() + 60
        while not (run / "checkpoint").exists() and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (run / "summary.json").exists()
    partial = len(read_log(run / "log.csv"))
    assert call(*words, folder) == call(*words, other) == 0
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    whole = other / "runs" / "equinox~noise_80~s0" / "log.csv"
    assert (run / "log.csv").read_bytes() == whole.read_bytes()
    assert partial < len(read_log(whole))
