"""Equinox in vLLM's server, with streaming clients: opt-in, `make test-vllm`. Seconds vary, ranks hardly."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

if os.environ.get("MOPE_TEST_VLLM") != "1":
    pytest.skip("needs vLLM: make test-vllm", allow_module_level=True)

log = logging.getLogger(__name__)
SCRIPTS = Path(__file__).parents[3] / "scripts"
OURS = ("--scheduler-cls", "mope.serving_adapters.vllm_adapter.EquinoxScheduler")
TENANTS = ["heavy"] * 40 + ["light"] * 8
TOKENS = 160
START_S = 300


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("http-model")
    code = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import vllm_lab, pathlib; "
    subprocess.run(
        [sys.executable, "-c", code + f"vllm_lab.tiny_model(pathlib.Path({str(folder)!r}))"], check=True
    )
    return folder


@contextlib.contextmanager
def server(model: Path, folder: Path, *flags: str, **variables: str) -> Iterator[str]:
    """vLLM's own server; its address."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    env = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(folder), **variables,
    }  # fmt: skip
    env.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "m",
        "--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "4",
        "--host", "127.0.0.1", "--port", str(port), *flags,
    ]  # fmt: skip
    output = folder.parent / f"{folder.name}.log"
    with output.open("w") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}", process, output)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    for _ in range(START_S):
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(1)
    raise AssertionError(f"the server did not start:\n{output.read_text()[-4000:]}")


class Crowd:
    """Streaming clients that come in order; `ended` lists tenants as they end, `events` what each received."""

    def __init__(self, url: str, gone: frozenset[int] = frozenset()) -> None:
        self.url, self.gone = url, gone
        self.ended: list[str] = []
        self.events: dict[int, int] = {}
        self.seconds: dict[int, float] = {}
        threads = [threading.Thread(target=self._client, args=(n, one)) for n, one in enumerate(TENANTS)]
        self.start = time.monotonic()
        for thread in threads:
            thread.start()
            time.sleep(0.003)
        for thread in threads:
            thread.join()

    def _client(self, number: int, tenant: str) -> None:
        body = {
            "model": "m", "prompt": [4 + number] * 16, "max_tokens": TOKENS, "ignore_eos": True, "stream": True,
            "temperature": 0, "vllm_xargs": {"tenant": tenant},
        }  # fmt: skip
        request = urllib.request.Request(
            f"{self.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        self.events[number] = 0
        with urllib.request.urlopen(request, timeout=300) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    self.events[number] += 1
                    if number in self.gone and self.events[number] == 3:
                        return  # hangs up
        self.seconds[number] = time.monotonic() - self.start
        self.ended.append(tenant)

    @property
    def light_rank(self) -> float:
        """Mean place of the light tenant's requests among those that ended."""
        ranks = [place for place, tenant in enumerate(self.ended, 1) if tenant == "light"]
        return sum(ranks) / len(ranks)

    @property
    def summary(self) -> str:
        """In words, for the log."""
        return (
            f"mean seconds heavy {self.mean_s('heavy'):.2f}, light {self.mean_s('light'):.2f}, "
            f"light's mean place {self.light_rank:.1f}"
        )

    def mean_s(self, tenant: str) -> float:
        """Mean seconds until a tenant's requests had ended."""
        found = [seconds for number, seconds in self.seconds.items() if TENANTS[number] == tenant]
        return sum(found) / len(found)


def numbers(url: str) -> dict[str, float]:
    """Our lines of /metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("mope_equinox_")]
    return {name: float(value) for name, value in pairs}


def test_streaming_clients_of_the_light_tenant_end_early(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    folder.mkdir()
    with server(model, folder, *OURS) as url:
        Crowd(url)  # warms up
        ours = Crowd(url)
        Crowd(url, gone=frozenset(range(0, 48, 2)))
        Crowd(url)
        time.sleep(1)
        found = numbers(url)
    folder = tmp_path / "stock"
    folder.mkdir()
    with server(model, folder) as url:
        Crowd(url)
        stock = Crowd(url)
    log.info("ours %s, vLLM's %s", ours.summary, stock.summary)
    assert len(ours.ended) == len(stock.ended) == 48
    assert min(ours.events.values()) >= TOKENS / 2  # vLLM may put several tokens into one event
    assert ours.light_rank <= 0.28 * stock.light_rank
    assert ours.mean_s("light") < ours.mean_s(
        "heavy"
    )  # servers run one after the other: seconds do not compare
    assert found['mope_equinox_finished_total{tenant="light"}'] >= 8 * 3
    gone = [found.get(f'mope_equinox_cancelled_total{{tenant="{name}"}}', 0) for name in ("heavy", "light")]
    assert sum(gone) > 0
    assert not [name for name, value in found.items() if "failures" in name and value]
    left = [value for name, value in found.items() if "_running{" in name or "_waiting{" in name]
    assert left
    assert sum(left) == 0


def test_the_plug_in_makes_it_the_default_where_a_variable_asks(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    folder.mkdir()
    with server(model, folder, MOPE_VLLM="1") as url:
        crowd = Crowd(url)
        time.sleep(1.5)
        Crowd(url, gone=frozenset(range(48)))
        found = numbers(url)
    assert len(crowd.ended) == 48
    assert found['mope_equinox_finished_total{tenant="light"}'] >= 8
