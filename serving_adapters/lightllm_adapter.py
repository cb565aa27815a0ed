"""LightLLM: its request queues in fair order.

    python -m mope.serving_adapters.lightllm_adapter --model_dir ...

takes the arguments of `lightllm.server.api_server`. LightLLM's requests lie in shared memory and have no room for a
tenant: it travels as the attribute `mope_tenant` of a request's multimodal parameters, which are passed along as they
are; without one, everybody is `default`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from mope.errors import ConfigError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.forecasts import make_advice
from mope.serving_adapters.registry import Adapter
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.waiting_list import WaitingList

CARRIER = "mope_tenant"
ADAPTER = Adapter(
    name="lightllm",
    about="LightLLM: request queues in fair order; tenants need a hook in the HTTP server",
    use="python -m mope.serving_adapters.lightllm_adapter ...",
    distributions=("lightllm",),
    first="1.0.1",
    last="1.0.1",
)


def carried_tenant(req: Any) -> object:
    """What the HTTP side put beside the request."""
    return getattr(getattr(req, "multimodal_params", None), CARRIER, None)


class LightReads:
    """Requests of `lightllm.server.core.objs.req`."""

    def __init__(self, tenant_of: Callable[[Any], object]) -> None:
        self.tenant = tenant_of

    def id(self, req: Any) -> str:
        return str(req.request_id)

    def prompt_tokens(self, req: Any) -> int:
        return int(req.input_len)

    def max_tokens(self, req: Any) -> int | None:
        return int(req.sample_params.max_new_tokens)

    def output_tokens(self, req: Any) -> int:
        return int(req.shm_cur_output_len)

    def is_over(self, req: Any) -> bool:
        return bool(req.finish_status.is_finished() or req.shm_infer_released or self.is_aborted(req))

    def is_aborted(self, req: Any) -> bool:
        return bool(req.is_aborted and not req.is_paused)


def make_queue(
    base: type[Any],
    controller: Controller | None = None,
    tenant_of: Callable[[Any], object] = carried_tenant,
) -> type[Any]:
    """A subclass of one of LightLLM's queues (`ChunkedPrefillQueue`, ...) that admits in fair order."""

    class EquinoxQueue(base):  # type: ignore[misc]
        """Fair between tenants, by forecasts where there are any."""

        waiting_req_list: list[Any]

        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.fair = WaitingList(controller or _controller(), LightReads(tenant_of))

        def append(self, req: Any) -> None:
            """A request arrives."""
            super().append(req)
            self.fair.controller.step()
            self.fair.arrive(req)

        def extend(self, req_group: Any) -> None:
            """The requests of one group arrive."""
            super().extend(req_group)
            self.fair.controller.step()
            for req in req_group:
                self.fair.arrive(req)

        def back_to_wait_list(self, req_list: Any) -> None:
            """Paused for want of memory."""
            super().back_to_wait_list(req_list)
            self.fair.back(req_list)

        def generate_new_batch(self, current_batch: Any, limit_router_queue_length: Any = None) -> Any:
            """The base class' batch, from a list in fair order; with a limit, of that part of the list."""
            self.fair.controller.step()
            self.fair.look()
            waiting, most = self.waiting_req_list, limit_router_queue_length
            if most is None:
                room = self.running_max_req_size - self.get_batch_dp_req_size(current_batch)
                self.waiting_req_list = self.fair.sort(waiting, room)
            batch = super().generate_new_batch(current_batch, most)
            self.fair.admitted(() if batch is None else batch.reqs)
            return batch

    return EquinoxQueue


def _controller() -> Controller:
    settings = Settings.from_environment()
    return Controller(settings, advice=make_advice(settings))


def register(queues: Any = None) -> None:
    """Let every queue that LightLLM picks be fair. Raises `ConfigError` where the seam has moved. Twice is once."""
    queues = queues or import_module("lightllm.server.router.req_queue")
    theirs = getattr(queues, "_get_req_queue_class", None)
    if theirs is None:
        raise ConfigError(
            "a lightllm.server.router.req_queue without _get_req_queue_class", "LightLLM fc72ffab"
        )
    if hasattr(theirs, "mope_original"):
        return

    def get_req_queue_class(args: Any, router: Any, dp_size_in_node: int) -> Any:
        return make_queue(theirs(args, router, dp_size_in_node))

    get_req_queue_class.mope_original = theirs  # type: ignore[attr-defined]
    queues._get_req_queue_class = get_req_queue_class


def start_router_process(*args: Any, **named: Any) -> None:
    """LightLLM's router in its own, spawned process: registered there, then theirs."""
    register()
    import_module("lightllm.server.router.manager").start_router_process(*args, **named)


def main() -> None:
    """Their API server with our router process."""
    start = import_module("lightllm.server.api_start")
    start.start_router_process = start_router_process  # type: ignore[attr-defined]
    import runpy

    runpy.run_module("lightllm.server.api_server", run_name="__main__")


if __name__ == "__main__":
    from mope.serving_adapters import lightllm_adapter

    lightllm_adapter.main()  # so that the spawned process finds the function under its real name
