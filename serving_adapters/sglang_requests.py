"""What is read of an SGLang request (`sglang.srt.managers.schedule_batch.Req`), and nothing else is.

Everything here is the same on every rank of one engine: ids, tokens and flags, never a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mope.errors import ConfigError

ATTRIBUTES = (  # that __init__ of a request sets; `check_seam` looks for them
    "extra_key", "finished_reason", "is_retracted", "lora_id", "origin_input_ids", "output_ids", "priority",
    "routing_key", "sampling_params", "time_stats",
)  # fmt: skip
RID_END = "/"
TENANT_KEY = "tenant"


def routing_key(req: Any) -> object:
    """Header `x-smg-routing-key`, or the field `routing_key` of /generate."""
    return req.routing_key


def extra_key(req: Any) -> object:
    """Body field `extra_key`, without the LoRA id that the engine appends."""
    key, lora_id = req.extra_key, req.lora_id
    return key[: -len(lora_id)] if key and lora_id and key.endswith(lora_id) else key


def lora(req: Any) -> object:
    """The adapter, by the id the engine gave it."""
    return req.lora_id


def rid(req: Any) -> object:
    """What stands before the first slash of the request id, where there is one."""
    tenant, slash, _ = str(req.rid).partition(RID_END)
    return tenant if slash else None


def custom(req: Any) -> object:
    """`tenant` in the sampling parameters' `custom_params`."""
    return custom_param(req, TENANT_KEY)


CARRIERS: dict[str, Callable[[Any], object]] = {
    "routing_key": routing_key,
    "extra_key": extra_key,
    "lora": lora,
    "rid": rid,
    "custom_params": custom,
}
ORDER = ("routing_key", "extra_key", "lora", "rid")


def tenant_reader(carriers: tuple[str, ...] = ()) -> Callable[[Any], object]:
    """What names the tenant of a request: the first of `carriers` that says something, by default those of `ORDER`.

    Raises `ConfigError` on an unknown carrier.
    """
    names = carriers or ORDER
    unknown = [name for name in names if name not in CARRIERS]
    if unknown:
        raise ConfigError(f"tenant_from: {unknown[0]!r}", f"one of {', '.join(CARRIERS)}")
    readers = [CARRIERS[name] for name in names]

    def read(req: Any) -> object:
        for reader in readers:
            found = reader(req)
            if found:
                return found
        return None

    return read


def custom_param(req: Any, key: str) -> object:
    """An entry of `sampling_params.custom_params`; None where there is none."""
    params = req.sampling_params.custom_params
    return params.get(key) if isinstance(params, Mapping) else None


def was_started(req: Any) -> bool:
    """Whether a request that left the waiting list went into a batch. Else it was aborted while it waited."""
    return not req.is_retracted and req.time_stats.forward_entry_time > 0


def was_aborted(req: Any) -> bool:
    """Whether a finished request was given up by its client or the engine."""
    return type(req.finished_reason).__name__ == "FINISH_ABORT"


def output_tokens(req: Any) -> int:
    """Tokens up to the stop of a finished request: speculation may have made more."""
    made, stop = len(req.output_ids), getattr(req, "finished_len", None)
    return made if stop is None else min(made, stop)
