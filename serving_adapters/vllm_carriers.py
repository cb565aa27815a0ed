"""Where a request of vLLM says whose it is, and how long its answer is foreseen to be. Imports nothing of vLLM.

`vllm_xargs` in the body of a request arrives as `sampling_params.extra_args`. The OpenAI field `user` never reaches
the engine: a gateway has to copy it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mope.errors import ConfigError

TENANT_KEY = "tenant"
ORDER = ("xargs", "cache_salt", "lora")


def _salt(request: Any) -> object:
    return request.cache_salt


def _lora(request: Any) -> object:
    return None if request.lora_request is None else request.lora_request.lora_name


def _session(request: Any) -> object:
    return getattr(request, "session_id", None)


CARRIERS: dict[str, Callable[[Any], object]] = {"cache_salt": _salt, "lora": _lora, "session_id": _session}


def extra_arg(request: Any, key: str) -> object:
    """An entry of `vllm_xargs`; None where there is none."""
    params = request.sampling_params
    args = None if params is None else params.extra_args
    return args.get(key) if args else None


def forecast_of(request: Any, key: str) -> object:
    """What came with a request as its forecast: a number of tokens, or (low, tokens, high)."""
    return extra_arg(request, key)


def tenant_reader(carriers: Sequence[str] = ()) -> Callable[[Any], object]:
    """Reads the tenant from the first of `carriers` that says one; None where none does.

    A carrier is one of `CARRIERS`, or `xargs` or `xargs:key` for an entry of `vllm_xargs`. Raises `ConfigError` on
    any other word.
    """
    readers = [_reader(word) for word in carriers or ORDER]

    def read(request: Any) -> object:
        for reader in readers:
            found = reader(request)
            if found is not None and found != "":
                return found
        return None

    return read


def _reader(word: str) -> Callable[[Any], object]:
    name, _, key = word.partition(":")
    if name == "xargs":
        return lambda request: extra_arg(request, key or TENANT_KEY)
    if key or name not in CARRIERS:
        raise ConfigError(f"tenant_from: {word!r}", f"of vLLM's: xargs, xargs:key, {', '.join(CARRIERS)}")
    return CARRIERS[name]
