from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mope import Forecaster, Load, Request
from mope.cli import build_app
from mope.errors import ConfigError, DataError

HARDWARE = "llama-2-7b@a100-80g"
PROMPTS = ["Explain quicksort", "Write a haiku about autumn.", "Hi"]


def run(*words: str) -> tuple[str, str]:
    result = CliRunner().invoke(
        build_app(), ["predict", *words], catch_exceptions=False, standalone_mode=False
    )
    return result.stdout, result.stderr


def test_json_is_the_forecast() -> None:
    out, _ = run(
        PROMPTS[0], "--hardware", HARDWARE, "--prices", "gpt-4o", "--batch", "8", "--context", "300", "--json"
    )
    [told] = json.loads(out)
    made = Forecaster(None, HARDWARE, "gpt-4o", load=Load(8, 300.0))
    found = made.forecast(Request(PROMPTS[0]))
    assert told["prompt"] == PROMPTS[0]
    assert told["hardware"] == HARDWARE
    assert told["calibrated"] is True
    assert found.latency_s is not None
    assert told["latency_s"] == pytest.approx(found.latency_s._asdict())
    assert found.cost is not None
    assert told["cost"] == pytest.approx(found.cost._asdict())


def test_the_table_names_every_measure_and_an_uncalibrated_pair() -> None:
    out, _ = run(PROMPTS[0], "--hardware", "llama-2-7b@l40s")
    for name in ("TTFT", "TPOT", "latency", "tokens/s", "MFU", "MBU", "GPU use", "KV blocks", "GPU-seconds"):
        assert name in out
    assert "uncalibrated" in out


def test_prices_alone_need_no_hardware() -> None:
    out, err = run(PROMPTS[0], "--prices", "gpt-4o-mini")
    assert "cost, USD" in out
    assert "TTFT" not in out
    assert "days old" in err


def test_a_file_gets_the_same_numbers_in_columns(tmp_path: Path) -> None:
    source, target = tmp_path / "p.jsonl", tmp_path / "o.jsonl"
    source.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    run("--file", str(source), "--output", str(target), "--hardware", HARDWARE, "--prices", "gpt-4o")
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    wanted = Forecaster(None, HARDWARE, "gpt-4o").forecast(PROMPTS)
    for row, found in zip(rows, wanted, strict=True):
        assert row["tokens"] == pytest.approx(found.length.tokens)
        assert found.gpu_s is not None
        assert found.cost is not None
        assert row["gpu_s"] == pytest.approx(found.gpu_s.value)
        assert row["cost_high"] == pytest.approx(found.cost.high)
        assert row["ttft_s"] == pytest.approx(found.ttft_s)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("Hi", "--hardware", "nope"), ConfigError),
        (("Hi", "--hardware", "llama-2-70b@a100-80g"), ConfigError),
        (("Hi", "--prices", "no-such-model-at-all"), ConfigError),
        (("Hi", "--prices", "gpt-4o", "--price-list", "missing.json"), DataError),
        (("Hi", "--hardware", HARDWARE, "--batch", "64", "--context", "9000"), ConfigError),
        (("Hi", "--hardware", HARDWARE, "--batch", "64", "--step-tokens", "8"), ConfigError),
    ],
)
def test_bad_names_and_impossible_loads_are_refused(words: tuple[str, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        run(*words)


def test_the_router_alone_has_no_lengths_to_map(tmp_path: Path) -> None:
    source = tmp_path / "p.jsonl"
    source.write_text('{"prompt": "Hi"}\n')
    with pytest.raises(ConfigError, match="--router-only"):
        run(
            "--file",
            str(source),
            "--output",
            str(tmp_path / "o.jsonl"),
            "--router-only",
            "--hardware",
            HARDWARE,
        )
