"""What the adapter holds on to in vLLM, checked when an engine starts and in sources that cannot be run here.

vLLM calls its scheduler interface not public. So an upgrade that moves any of this has to be found out at the start,
with a message that names it, and not by requests that are lost later.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from mope.errors import ConfigError
from mope.serving_adapters.registry import check

QUEUE = (
    "add_request pop_request peek_request prepend_request prepend_requests remove_request remove_requests "
    "__bool__ __len__ __iter__"
)
SEAM: dict[str, dict[str, str]] = {
    "vllm/v1/core/sched/request_queue.py": {
        "RequestQueue": QUEUE,
        "SchedulingPolicy": "FCFS PRIORITY",
        "": "create_request_queue",
    },
    "vllm/v1/core/sched/scheduler.py": {
        "Scheduler": "schedule update_from_output finish_requests add_request "
        "self.waiting self.running self.policy self.finished_req_ids",
    },
    "vllm/v1/core/sched/async_scheduler.py": {"AsyncScheduler": ""},
    "vllm/v1/core/sched/output.py": {
        "SchedulerOutput": "num_scheduled_tokens scheduled_new_reqs scheduled_cached_reqs finished_req_ids",
        "CachedRequestData": "resumed_req_ids",
        "NewRequestData": "req_id",
    },
    "vllm/v1/request.py": {
        "Request": "self.request_id self.priority self.status self.max_tokens self.num_prompt_tokens "
        "self.sampling_params self.lora_request self.cache_salt num_output_tokens",
        "RequestStatus": "PREEMPTED FINISHED_ABORTED FINISHED_ERROR FINISHED_IGNORED",
    },
    "vllm/config/scheduler.py": {"SchedulerConfig": "scheduler_cls async_scheduling get_scheduler_cls"},
}
"""File -> class ("" for the module) -> what it must have; `self.x` is set in its `__init__`."""


def check_seam() -> None:
    """Raise `ConfigError` where the vLLM that runs was not tested, or has moved what the adapter holds on to."""
    import vllm

    from mope.serving_adapters.vllm_adapter import ADAPTER

    check(ADAPTER, str(vllm.__version__))
    missing = missing_in_sources(_installed_sources())
    if missing:
        raise ConfigError(
            f"vLLM {vllm.__version__} has no {', '.join(missing)}",
            f"the scheduler interface of vLLM {ADAPTER.tested}",
            "install one of these, or a newer mope-llm",
        )


def _installed_sources() -> dict[str, str]:
    """The files of the seam, of the vLLM that is installed."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parents[1]
    return {name: path.read_text("utf-8") for name in SEAM if (path := home / name).is_file()}


def missing_in_sources(sources: Mapping[str, str]) -> list[str]:
    """What of the seam is not in these files (name -> text), in words; abstract methods we do not have, too."""
    missing: list[str] = []
    for name, classes in SEAM.items():
        if name not in sources:
            missing.append(name)
            continue
        tree = ast.parse(sources[name])
        for owner, wanted in classes.items():
            missing += _missing_names(tree, owner, wanted.split())
    return missing + _new_methods(sources.get("vllm/v1/core/sched/request_queue.py", ""))


def _missing_names(tree: ast.Module, owner: str, wanted: list[str]) -> list[str]:
    if not owner:
        return [name for name in wanted if name not in _names(tree)]
    found = _class(tree, owner)
    if found is None:
        return [owner]
    return [f"{owner}.{name.removeprefix('self.')}" for name in wanted if name not in _names(found)]


def _class(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def _names(owner: ast.Module | ast.ClassDef) -> set[str]:
    """Functions and fields of a module or class; what its methods set on self as `self.x`."""
    found: set[str] = set()
    for node in owner.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
            found |= {f"self.{name}" for one in ast.walk(node) if (name := _set_on_self(one))}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def _set_on_self(node: ast.AST) -> str:
    """x of `self.x` where that is assigned to; empty for anything else."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.attr if isinstance(node.value, ast.Name) and node.value.id == "self" else ""
    return ""


def _new_methods(text: str) -> list[str]:
    """Abstract methods of the queue that ours does not have."""
    queue = _class(ast.parse(text), "RequestQueue")
    methods = [node for node in queue.body if isinstance(node, ast.FunctionDef)] if queue else []
    abstract = [
        node.name for node in methods if any("abstract" in ast.unparse(d) for d in node.decorator_list)
    ]
    return [f"a queue without {name}" for name in abstract if name not in (*QUEUE.split(), "__reversed__")]
