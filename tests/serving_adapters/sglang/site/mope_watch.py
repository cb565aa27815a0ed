"""A plug-in of the tests: writes down in which forward pass each request ends, and what our accounts say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Event
from typing import Any

FOLDER = os.environ.get("MOPE_WATCH", "")


def register() -> None:
    """What SGLang calls in each of its processes."""
    if not FOLDER:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    scheduler = "sglang.srt.managers.scheduler.Scheduler"
    HookRegistry.register(f"{scheduler}.process_batch_result", ended, HookType.AFTER)
    HookRegistry.register("sglang.srt.managers.schedule_batch.Req.update_finish_state", ends, HookType.BEFORE)
    apply_hooks = HookRegistry.apply_hooks

    def last() -> None:
        """Hooks run in the order they came, and what we look at is what the others leave."""
        policy = "sglang.srt.managers.schedule_policy.SchedulePolicy"
        HookRegistry.register(f"{policy}.calc_priority", accounts, HookType.AFTER)
        apply_hooks()

    HookRegistry.apply_hooks = last


def ended(result: Any, scheduler: Any, batch: Any, *args: Any, **named: Any) -> Any:
    """One line for each finished request: pass, output tokens, retractions, id."""
    lines = [
        f"{scheduler.forward_ct} {len(req.output_ids)} {req.retraction_count} {req.rid}\n"
        for req in batch.reqs
        if req.finished()
    ]
    with Path(FOLDER, f"ended-{os.getpid()}").open("a") as file:
        file.writelines(lines)
    with Path(FOLDER, f"served-{os.getpid()}").open("a") as file:
        file.write(served(batch) + "\n")
    return result


def ends(req: Any, *args: Any, **named: Any) -> None:
    """A request with `ends_at` ends there, as if at a token of its own choice: its bound tells nobody the length."""
    from sglang.srt.managers.schedule_batch import FINISH_LENGTH

    ends_at = (req.sampling_params.custom_params or {}).get("ends_at")
    if ends_at and len(req.output_ids) >= ends_at and not req.finished():
        req.to_finish = FINISH_LENGTH(length=ends_at)


def served(batch: Any) -> str:
    """Tokens of one pass by tenant, prompt and output: `heavy=0+3 light=10+1`."""
    found: dict[str, list[int]] = {}
    for req in batch.reqs:
        tokens = found.setdefault(req.rid.partition("/")[0], [0, 0])
        tokens[0] += len(req.origin_input_ids) if batch.forward_mode.is_extend() else 0
        tokens[1] += 1
    return " ".join(f"{tenant}={prompt}+{output}" for tenant, (prompt, output) in found.items())


def accounts(result: Any, policy: Any, waiting: list[Any], *args: Any, **named: Any) -> Any:
    """The order of the waiting list, and the accounts as they are now."""
    with Path(FOLDER, f"orders-{os.getpid()}").open("a") as file:
        file.write(" ".join(req.rid for req in waiting) + "\n")
    if "mope_fair" in policy.__dict__:
        fair = policy.__dict__["mope_fair"].order
        found = fair.controller.scheduler.metrics()
        clients = {
            one.client: [one.finished, one.cancelled, one.output_tokens, one.fallbacks, one.user_counter]
            for one in found.clients
        }
        table = {"running": found.running, "waiting": found.waiting, "clients": clients}
        table |= {"totals": fair.controller.totals(), "open": len(fair.ledger.open)}
        Path(FOLDER, f"accounts-{os.getpid()}").write_text(json.dumps(table))
    return result


def exact(requests: list[Any]) -> list[float]:
    """The lengths of the plan."""
    return [64.0] * len(requests)


def awkward(requests: list[Any], calls: list[int] = []) -> list[Any]:  # noqa: B006 - counts its calls
    """Raises, then talks nonsense, then never answers again."""
    calls.append(len(requests))
    if len(calls) == 1:
        raise RuntimeError("no forecast today")
    if len(calls) > 2:
        Event().wait()
    return ["nonsense"] * len(requests)
