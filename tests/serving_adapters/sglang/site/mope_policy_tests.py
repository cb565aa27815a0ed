"""SGLang's own policy tests with our plug-in in it: `python -m pytest -p mope_policy_tests test_schedule_policy.py`.

With this folder on PYTHONPATH, in the engine's environment, and MOPE_SGLANG=1. The tests are in SGLang's repository,
not in its packages.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _engine_with_plugins() -> Iterator[None]:
    from sglang.srt.plugins import load_plugins
    from sglang.test.test_utils import maybe_stub_sgl_kernel, published_topology

    maybe_stub_sgl_kernel()
    load_plugins()
    with published_topology(device="cpu", attention_backend="torch_native"):
        yield
