"""`mope simulate` and `mope study`: results on stdout, runs in a folder, errors with exit code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mope.cli import main
from mope.sim.log import read_log

SCENARIO = """
duration_s = 20
hardware = "llama-2-7b@a10g"
[[clients]]
name = "a"
rate = 2.0
output_tokens = {uniform = [1, 50]}
[[clients]]
name = "b"
rate = 1.0
"""


def call(*argv: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in argv])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(SCENARIO)
    return str(path)


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_policies_predictors_and_seeds_in_one_document(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--policy", "vtc,equinox:alpha=0.5,beta=0.5", "--predictor", "exact,noise:30", "--seeds", "2")
    assert call("simulate", scenario, *words, "--json") == 0
    found = document(capsys)
    assert [(row["policy"], row["predictor"], row["seeds"]) for row in found["table"]] == [
        ("vtc", "exact", 2), ("vtc", "noise:30", 2),
        ("equinox:alpha=0.5,beta=0.5", "exact", 2), ("equinox:alpha=0.5,beta=0.5", "noise:30", 2),
    ]  # fmt: skip
    assert len(found["runs"]) == 8
    assert found["table"][0]["tokens_per_s"]["low"] < found["table"][0]["tokens_per_s"]["high"]
    assert found["hardware"] == "llama-2-7b@a10g"


def test_a_folder_of_runs_and_the_config_beside_them(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = (
        "--policy",
        "fcfs",
        "--set",
        "loop=slora",
        "--hardware",
        "llama-2-7b@a100-80g",
        "--output",
        str(out),
    )
    assert call("simulate", scenario, *words) == 0
    assert "fcfs" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["server"]["loop"] == "slora"
    results = json.loads((out / "results.json").read_text())
    log = read_log(out / "runs" / "fcfs~noise_80~s0" / "log.csv")
    assert len(log) == results["runs"][0]["summary"]["requests"]
    assert results["hardware"] == "llama-2-7b@a100-80g"
    assert not list(out.rglob("*.partial"))
    assert results["compared"] == []  # one policy, one seed


def test_policies_are_compared_and_drawn_on_a_page_that_needs_no_network(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    words = ("--policy", "fcfs,vtc", "--predictor", "none", "--seeds", "2", "--output", str(out), "--json")
    assert call("simulate", scenario, *words) == 0
    compared = document(capsys)["compared"]
    assert {(row["ours"], row["theirs"]) for row in compared} == {("vtc, none", "fcfs, none")}
    assert {row["metric"] for row in compared} >= {"tokens_per_s", "ttft_s.mean", "jain_served"}
    page = (out / "report.html").read_text()
    assert not re.search(r'(?:src|href)=(?!"data:)|https?://|url\(|@import|<script', page)
    assert page.count("<img") == 2 + 2 + 1  # fcfs has no counters
    assert "Compared with the first" in page


def test_without_matplotlib_there_is_no_page_and_a_word_on_it(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mope.extras.find_spec", lambda name: None)
    out = tmp_path / "out"
    assert call("simulate", scenario, "--policy", "fcfs", "--output", str(out)) == 0
    assert "no report.html" in capsys.readouterr().err
    assert (out / "results.json").exists()
    assert not (out / "report.html").exists()


def test_a_trace_with_clients_that_are_assigned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text(
        "arrival_s,client,prompt_tokens,output_tokens\n" + "".join(f"{i},x,9,9\n" for i in range(50))
    )
    words = ("--policy", "fcfs", "--clients", "equal:3", "--speed", "2", "--limit", "40", "--json")
    assert call("simulate", str(trace), *words) == 0
    summary = document(capsys)["runs"][0]["summary"]
    assert summary["requests"] == 40
    assert set(summary["clients"]) == {"equal-1", "equal-2", "equal-3"}
    assert 19 < summary["simulated_s"] < 25


@pytest.mark.parametrize(
    "words",
    [
        ("nothing",),
        ("vtc/nothing",),
        ("vtc/overload", "--policy", "best"),
        ("vtc/overload", "--policy", ","),
        ("vtc/overload", "--predictor", "noise"),
        ("vtc/overload", "--hardware", "abacus"),
        ("vtc/overload", "--set", "loop=fast"),
        ("vtc/overload", "--set", "speed=3"),
        ("vtc/overload", "--clients", "equal:3"),
        ("vtc/overload", "--limit", "0"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("simulate", *words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error" in captured.err.lower()
    assert "Traceback" not in captured.err


def test_an_unsorted_trace_names_file_and_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("arrival_s,client,prompt_tokens,output_tokens\n5,a,1,1\n4,a,1,1\n")
    assert call("simulate", str(trace), "--policy", "fcfs") == 2
    assert "t.csv: row 2" in capsys.readouterr().err


def test_the_study_prints_each_run_beside_the_real_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mope.sim import fidelity

    runs = [run for run in fidelity.logged_runs() if run.suite == "on_off_less"]
    monkeypatch.setattr(fidelity, "logged_runs", lambda: runs)
    assert call("study", "vtc", "--json") == 0
    found = document(capsys)
    assert [(row["suite"], row["policy"]) for row in found["runs"]] == [
        ("on_off_less", "vtc"),
        ("on_off_less", "fcfs"),
    ]
    for row in found["runs"]:
        assert abs(row["tokens_per_s"]["off"]) < 0.03
        assert abs(row["ttft_s"]["off"]) < 0.10
    assert found["orders"] == [
        {"suite": "on_off_less", "ours": ["vtc", "fcfs"], "real": ["vtc", "fcfs"], "same": True}
    ]
    assert call("study", "vtc") == 0
    printed = capsys.readouterr().out
    assert "877" in printed
    assert "fairest first vtc < fcfs, the same" in printed
