"""An unmodified vLLM over HTTP: tags by `--middleware`, then a gate by proxy before it. Opt-in, `make test-vllm`.

Places among 48 hardly vary, seconds do. First come, first served, the light tenant's mean place is 44.5.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mope.serving_adapters.gate import Gate, GateConfig
from mope.serving_adapters.settings import Settings

if os.environ.get("MOPE_TEST_VLLM") != "1":
    pytest.skip("needs vLLM: make test-vllm", allow_module_level=True)

_spec = importlib.util.spec_from_file_location("vllm_http", Path(__file__).with_name("test_vllm_http.py"))
assert _spec is not None
assert _spec.loader is not None
http = sys.modules["vllm_http"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(http)

log = logging.getLogger(__name__)
TENANTS = ["heavy"] * 40 + ["light"] * 8
TOKENS = 64
FCFS_PLACE = 44.5
FLAGS = ("--scheduling-policy", "priority", "--middleware", "mope.serving_adapters.asgi.FairMiddleware")


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's server with tags given in its own process."""
    model = tmp_path_factory.mktemp("doors-model")
    code = f"import sys, pathlib; sys.path.insert(0, {str(http.SCRIPTS)!r}); import vllm_lab; "
    made = code + f"vllm_lab.tiny_model(pathlib.Path({str(model)!r}))"
    subprocess.run([sys.executable, "-c", made], check=True)
    folder = tmp_path_factory.mktemp("doors")
    with http.server(model, folder, *FLAGS, MOPE_TAGS="vllm") as url:
        crowd(url)  # warms up
        yield url


@pytest.fixture
def proxy(vllm: str) -> Iterator[tuple[str, Any]]:
    """`mope serve` with a gate of four slots before it, and its gate."""
    import uvicorn

    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request otherwise
    from mope.server import ServeConfig, Service

    service = Service(ServeConfig(vllm, gate=GateConfig(slots=4), settings=Settings()))
    server = uvicorn.Server(uvicorn.Config(service, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", service.door
    server.should_exit = True
    thread.join()


def crowd(url: str, gone: frozenset[int] = frozenset()) -> list[str]:
    """48 streaming clients that come in order, the tenants in the order they end; those in `gone` hang up."""
    ended: list[str] = []

    def client(number: int) -> None:
        body = {
            "model": "m", "prompt": [4 + number] * 16, "max_tokens": TOKENS, "ignore_eos": True, "stream": True,
            "temperature": 0,
        }  # fmt: skip
        headers = {"Content-Type": "application/json", "X-Tenant-Id": TENANTS[number]}
        request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=300) as answer:
            lines = [line for line in answer if line.startswith(b"data: {") and number not in gone]
        assert number in gone or lines
        assert not any(b'"choices":[]' in line for line in lines)  # the usage that only we asked for
        ended.append(TENANTS[number])

    def hang_up(number: int) -> None:
        body = {
            "model": "m",
            "prompt": [4 + number] * 16,
            "max_tokens": 400,
            "ignore_eos": True,
            "stream": True,
        }
        headers = {"Content-Type": "application/json", "X-Tenant-Id": TENANTS[number]}
        request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=300) as answer:
            answer.readline()

    threads = [
        threading.Thread(target=hang_up if number in gone else client, args=(number,)) for number in range(48)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.003)
    for thread in threads:
        thread.join()
    return ended


def place(ended: list[str]) -> float:
    places = [number for number, tenant in enumerate(ended, 1) if tenant == "light"]
    return sum(places) / len(places)


def metrics(url: str, path: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}{path}", timeout=30) as answer:
        lines = answer.read().decode("ascii").splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_tags_by_middleware_let_the_light_tenant_end_early(vllm: str) -> None:
    before = metrics(vllm, "/mope/metrics")
    ended = crowd(vllm)
    log.info("mean place of the light tenant %.1f", place(ended))
    assert len(ended) == 48
    assert place(ended) <= 0.40 * FCFS_PLACE
    after = metrics(vllm, "/mope/metrics")
    for tenant, requests in (("heavy", 40), ("light", 8)):
        name = f'mope_equinox_output_tokens{{client="{tenant}"}}'
        assert after[name] - before.get(name, 0) == requests * TOKENS  # by the usage, exact
    assert after["mope_tags_open"] == 0


def test_a_gate_before_it_does_so_too_and_forgets_those_that_hang_up(
    proxy: tuple[str, Gate],
) -> None:
    url, gate = proxy
    ended = crowd(url)
    log.info("mean place of the light tenant %.1f", place(ended))
    assert len(ended) == 48
    assert place(ended) <= 0.40 * FCFS_PLACE
    rest = crowd(url, gone=frozenset(range(0, 48, 2)))
    assert len(rest) == 24
    while gate.running or gate.waiting:  # those that hung up last
        time.sleep(0.05)
    assert not gate.scheduler.jobs
    found = metrics(url, "/metrics")
    assert found['mope_equinox_finished{client="light"}'] >= 8 + 4
    assert sum(found[f'mope_equinox_running{{client="{tenant}"}}'] for tenant in ("heavy", "light")) == 0
