"""What the adapter holds on to in SGLang, looked at before it hooks in: an upgrade that moves it ends the start."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from mope.errors import ConfigError
from mope.serving_adapters.sglang_requests import ATTRIBUTES

POLICY = "sglang.srt.managers.schedule_policy"
HOOKS = "sglang.srt.plugins.hook_registry"
REQUESTS = "sglang.srt.managers.schedule_batch"
FRONT_END = "sglang.srt.managers.tokenizer_manager"
SORT = f"{POLICY}.SchedulePolicy.calc_priority"
TOKENIZE = f"{FRONT_END}.TokenizerManager._tokenize_one_request"
METHODS = ("reset_for_retract",)


def check_seam(with_front_end: bool = False) -> None:
    """Raise `ConfigError` unless this SGLang has what the adapter hooks into and reads.

    `with_front_end`: also what a predictor hooks into.
    """
    hooks = _module(HOOKS)
    if not hasattr(getattr(hooks, "HookType", None), "AFTER") or not hasattr(hooks, "HookRegistry"):
        raise _moved(f"{HOOKS} without HookRegistry and HookType.AFTER")
    sort = _method(POLICY, "SchedulePolicy", "calc_priority")
    names = list(inspect.signature(sort).parameters)
    if names[:2] != ["self", "waiting_queue"] or inspect.iscoroutinefunction(sort):
        raise _moved(f"calc_priority({', '.join(names)})")
    stored = _method(REQUESTS, "Req", "__init__").__code__.co_names
    missing = [name for name in ATTRIBUTES if name not in stored]
    missing += [name for name in METHODS if not hasattr(_module(REQUESTS).Req, name)]
    if missing:
        raise _moved(f"Req without {', '.join(missing)}")
    if with_front_end:
        _check_front_end()


def _check_front_end() -> None:
    tokenize = _method(FRONT_END, "TokenizerManager", "_tokenize_one_request")
    names = list(inspect.signature(tokenize).parameters)
    if names[:2] != ["self", "obj"] or not inspect.iscoroutinefunction(tokenize):
        raise _moved(f"_tokenize_one_request({', '.join(names)})")


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise _moved(str(error)) from None


def _method(module: str, cls: str, name: str) -> Any:
    found = getattr(getattr(_module(module), cls, None), name, None)
    if found is None:
        raise _moved(f"{module} without {cls}.{name}")
    return inspect.unwrap(found)


def _moved(found: str) -> ConfigError:
    return ConfigError(
        f"this SGLang is not the one the adapter knows: {found}",
        "a version the adapter was tested with",
        "mope adapters names them",
    )
