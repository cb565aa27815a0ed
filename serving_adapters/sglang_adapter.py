"""Equinox inside SGLang: a plug-in of the engine that sorts its waiting list before each admission.

    MOPE_SGLANG=1 python -m sglang.launch_server --model-path MODEL

Without the variable nothing is touched. SGLang runs `register` in each of its processes (entry-point group
`sglang.srt.plugins`). Settings come from `MOPE_EQUINOX` (`settings`). docs/sglang.md tells how to name tenants and
how to see it work.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from multiprocessing import parent_process
from typing import Any

from mope.errors import ConfigError, MopeError
from mope.serving_adapters import sglang_forecast
from mope.serving_adapters.base import Controller
from mope.serving_adapters.published import Published
from mope.serving_adapters.registry import Adapter, check
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.sglang_order import FairOrder
from mope.serving_adapters.sglang_requests import ORDER
from mope.serving_adapters.sglang_seam import HOOKS, SORT, TOKENIZE, check_seam

log = logging.getLogger("sglang.mope")
VARIABLE = "MOPE_SGLANG"
KEPT = "mope_fair"  # attribute of the engine's policy that holds ours

ADAPTER = Adapter(
    name="sglang",
    about="Equinox sorts SGLang's waiting list",
    use=f"{VARIABLE}=1 python -m sglang.launch_server --model-path MODEL",
    distributions=("sglang",),
    first="0.5.23",
    last="0.5.23",
)


def register() -> None:
    """What SGLang calls. Hooks in where `MOPE_SGLANG` asks for it; ends the process where that cannot be done.

    The engine logs and swallows every ordinary exception of a plug-in and would then serve in its own order: what
    was asked for must not be dropped in silence.
    """
    if os.environ.get(VARIABLE, "").strip().lower() not in ("1", "true", "yes", "on"):
        return
    try:
        hook_in(Settings.from_environment())
    except MopeError as error:
        raise SystemExit(f"mope: {error}\nUnset {VARIABLE} to serve in SGLang's own order.") from None


def hook_in(settings: Settings) -> None:
    """Put our hooks behind the engine's functions. Raises `MopeError` where version, seam or settings do not fit."""
    check(ADAPTER)
    check_seam(with_front_end=bool(settings.predictor))
    if FairOrder(Controller(settings)).controller.selective:
        raise ConfigError(
            f"policy {settings.policy!r} refuses requests",
            "one that orders them: equinox, vtc",
            "refuse requests in front of the engine: mope.serving_adapters.gate",
        )
    if settings.predictor and parent_process() is None:
        sglang_forecast.front_end()  # a wrong name is found at the start
    hooks = import_module(HOOKS)
    hooks.HookRegistry.register(SORT, after_calc, hooks.HookType.AFTER)
    if settings.predictor:
        hooks.HookRegistry.register(TOKENIZE, sglang_forecast.after_tokenize, hooks.HookType.AFTER)


class Fair:
    """What belongs to one scheduler of the engine: its order, and its counters at /metrics where they are on."""

    def __init__(self, settings: Settings) -> None:
        self.order = FairOrder(Controller(settings))
        self.published = Published(settings) if shows_metrics() else None

    def sort(self, waiting: list[Any], by_priority: bool) -> None:
        """Sort in place; whatever goes wrong is counted, and the engine goes on in its own order."""
        try:
            self.order.sort(waiting, by_priority)
            if self.published is not None:
                self.published.update(self.order.controller)
        except Exception as error:  # noqa: BLE001 - the engine goes on whatever happens here
            self.order.controller.failed("sort", error)


def after_calc(result: Any, policy: Any, waiting_queue: list[Any], *args: Any, **named: Any) -> Any:
    """After the engine's own sort: the fair one, which keeps the engine's order within each tenant."""
    fair: Fair | None = policy.__dict__.get(KEPT)
    if fair is None:
        settings = Settings.from_environment()
        fair = policy.__dict__[KEPT] = Fair(settings)
        log.info("fair scheduling by %s; tenants from %s", settings.policy, settings.tenant_from or ORDER)
    fair.sort(waiting_queue, bool(getattr(policy, "enable_priority_scheduling", False)))
    return result


def shows_metrics() -> bool:
    """Whether the server was started with --enable-metrics and this is the rank that counts for its replica."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return False
    try:
        parallel = import_module("sglang.srt.runtime_context").get_parallel()
        return bool(parallel.attn_tp_rank == 0 and parallel.pp_rank == 0)
    except (ImportError, AttributeError):
        return False
