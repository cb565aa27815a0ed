"""Equinox inside SGLang: a plug-in of the engine that sorts its waiting list before each admission.

    MOPE_SGLANG=1 python -m sglang.launch_server --model-path MODEL

Without the variable nothing is touched. SGLang runs `register` in each of its processes (entry-point group
`sglang.srt.plugins`). docs/sglang.md tells how to name tenants and how to see it work.
"""

from __future__ import annotations

import inspect
import logging
import os
from importlib import import_module
from typing import Any

from mope.errors import ConfigError, MopeError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.registry import Adapter, check
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.sglang_order import FairOrder
from mope.serving_adapters.sglang_requests import ATTRIBUTES

log = logging.getLogger("mope.adapters")
VARIABLE = "MOPE_SGLANG"
POLICY = "sglang.srt.managers.schedule_policy"
HOOKS = "sglang.srt.plugins.hook_registry"
TARGET = f"{POLICY}.SchedulePolicy.calc_priority"
KEPT = "mope_fair_order"  # attribute of the engine's policy that holds ours

ADAPTER = Adapter(
    "sglang",
    "SGLang: sorts the waiting list before each admission",
    f"{VARIABLE}=1 python -m sglang.launch_server --model-path MODEL",
    ("sglang",),
    "0.5.23",
    "0.5.23",
)


def register() -> None:
    """What SGLang calls. Hooks in where `MOPE_SGLANG` asks for it; ends the process where the seam has moved.

    The engine logs and swallows every ordinary exception of a plug-in and would then serve in its own order: what
    was asked for must not be dropped in silence.
    """
    if os.environ.get(VARIABLE, "").strip().lower() in ("", "0", "false", "no", "off"):
        return
    try:
        check(ADAPTER)
        check_seam()
        settings = Settings.from_environment()
        FairOrder(Controller(settings))  # a wrong setting is found now
    except MopeError as error:
        raise SystemExit(f"mope: {error}\nUnset {VARIABLE} to serve in SGLang's own order.") from None
    hooks = import_module(HOOKS)
    hooks.HookRegistry.register(TARGET, after_calc, hooks.HookType.AFTER)
    log.info("mope: %s orders SGLang's waiting list among tenants", settings.policy)


def after_calc(result: Any, policy: Any, waiting_queue: list[Any], *args: Any, **named: Any) -> Any:
    """After the engine's own sort: the fair one, which keeps the engine's order within each tenant."""
    fair = fair_order_of(policy)
    try:
        fair.sort(waiting_queue, bool(getattr(policy, "enable_priority_scheduling", False)))
    except Exception as error:  # noqa: BLE001 - the engine goes on whatever happens here
        fair.controller.failed("sort", error)
    return result


def fair_order_of(policy: Any) -> FairOrder:
    """The fair order that belongs to a policy object of the engine: one for each scheduler."""
    found: FairOrder | None = policy.__dict__.get(KEPT)
    if found is None:
        found = policy.__dict__[KEPT] = FairOrder(Controller(Settings.from_environment()))
    return found


def check_seam() -> None:
    """Raise `ConfigError` unless this SGLang has what the adapter hooks into and reads."""
    try:
        policy = import_module(POLICY).SchedulePolicy
        hooks = import_module(HOOKS)
        request = import_module("sglang.srt.managers.schedule_batch").Req
        names = list(inspect.signature(policy.calc_priority).parameters)
        _ = (hooks.HookRegistry.register, hooks.HookType.AFTER)
    except (ImportError, AttributeError) as error:
        raise _moved(str(error)) from None
    if names[:2] != ["self", "waiting_queue"]:
        raise _moved(f"calc_priority({', '.join(names)})")
    stored = request.__init__.__code__.co_names
    missing = [name for name in ATTRIBUTES if name not in stored]
    missing += [name for name in ("finished", "reset_for_retract") if not hasattr(request, name)]
    if missing:
        raise _moved(f"Req without {', '.join(missing)}")


def _moved(found: str) -> ConfigError:
    return ConfigError(
        f"this SGLang's scheduler is not the one the adapter knows: {found}",
        f"SGLang {ADAPTER.tested}",
        "install that version, or a newer mope-llm",
    )
