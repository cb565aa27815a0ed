"""S-LoRA and VTC-artifact: `--scheduler equinox`, one LoRA adapter being one tenant.

    python -m mope.serving_adapters.slora_adapter --scheduler equinox --model_dir ... --lora-dirs ...

takes the arguments of `slora.server.api_server`. The base class does the admission; we sort, charge and settle.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mope.errors import ConfigError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.forecasts import make_advice
from mope.serving_adapters.registry import Adapter
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.tenants import clean_tenant
from mope.serving_adapters.waiting_list import WaitingList

NAME = "equinox"
ADAPTER = Adapter(
    name="slora",
    about="S-LoRA and VTC-artifact: a request queue; one LoRA adapter is one tenant",
    use="python -m mope.serving_adapters.slora_adapter --scheduler equinox ...",
    distributions=("slora",),
    first="1.0",
    last="1.0",
)


class SLoraReads:
    """Requests of `slora.server.io_struct`."""

    def id(self, req: Any) -> str:
        return str(req.request_id)

    def tenant(self, req: Any) -> object:
        return req.adapter_dir  # None: the base model

    def prompt_tokens(self, req: Any) -> int:
        return int(req.input_len)

    def max_tokens(self, req: Any) -> int | None:
        return int(req.max_output_len)

    def output_tokens(self, req: Any) -> int:
        return len(req.output_ids)

    def is_over(self, req: Any) -> bool:
        return bool(req.has_generate_finished)

    def is_aborted(self, req: Any) -> bool:
        return bool(req.aborted)


def make_queue(base: type[Any], controller: Controller | None = None) -> type[Any]:
    """A subclass of `ReqQueue` that admits in fair order.

    Takes the arguments of either project's fair queues: (max_total_tokens, batch_max_tokens, running_max_req_size,
    adapter_dirs, fair_weights, cost_func, ...); weights belong to the adapters in order, as theirs do. Prices and
    the cost function are the policy's business and are ignored.
    """

    class EquinoxReqQueue(base):  # type: ignore[misc]
        """Fair between LoRA adapters, by forecasts where there are any."""

        waiting_req_list: list[Any]

        def __init__(
            self, max_total_tokens: int, batch_max_tokens: int, running_max_req_size: int,
            adapter_dirs: Any = (), fair_weights: Any = (), *_: Any,
        ) -> None:  # fmt: skip
            super().__init__(max_total_tokens, batch_max_tokens, running_max_req_size)
            own = controller or _controller()
            for place, weight in zip(adapter_dirs, fair_weights, strict=False):
                own.scheduler.set_weight(clean_tenant(place, own.settings.default_tenant), weight)
            self.fair = WaitingList(own, SLoraReads())
            self.abort_req_list: list[str] = []  # --enable-abort reads it

        def append(self, req: Any) -> None:
            """A request arrives."""
            super().append(req)
            self.fair.controller.step()
            self.fair.arrive(req)

        def generate_new_batch(self, current_batch: Any, lora_ranks: Any) -> Any:
            """The base class' batch, from a list in fair order."""
            self._sort(current_batch)
            batch = super().generate_new_batch(current_batch, lora_ranks)
            self.fair.admitted(() if batch is None else batch.reqs)
            return batch

        def update_counter(self, current_batch: Any) -> None:
            """Tokens made so far; called before finished requests are dropped."""
            self.fair.read(current_batch.reqs)

        def next_batch(self) -> Any:
            """What is likely to be next, for fetching adapters ahead."""
            self._sort(None)
            return super().next_batch()

        def reset_abort_list(self) -> None:
            """As the queue of --enable-abort has it."""
            self.abort_req_list = []

        def _sort(self, current_batch: Any) -> None:
            self.fair.controller.step()
            self.fair.look()
            running = 0 if current_batch is None else len(current_batch.reqs)
            room = self.running_max_req_size - running
            self.waiting_req_list = self.fair.sort(self.waiting_req_list, room)

    return EquinoxReqQueue


def _controller() -> Controller:
    settings = Settings.from_environment()
    return Controller(settings, advice=make_advice(settings))


def register(manager: Any = None) -> None:
    """Let `--scheduler equinox` mean our queue in `slora.server.router.manager`; every other word stays.

    Raises `ConfigError` where the seam has moved. Twice is once.
    """
    manager = manager or import_module("slora.server.router.manager")
    theirs, base = getattr(manager, "get_scheduler", None), getattr(manager, "ReqQueue", None)
    if theirs is None or base is None:
        raise ConfigError(
            "a slora.server.router.manager without get_scheduler and ReqQueue", "S-LoRA c1ddf48"
        )
    if hasattr(theirs, "mope_original"):
        return

    def get_scheduler(input_params: Any, adapter_dirs: Any) -> Any:
        if input_params.scheduler != NAME:
            return theirs(input_params, adapter_dirs)
        sizes = (
            input_params.max_total_token_num, input_params.batch_max_tokens, input_params.running_max_req_size,
        )  # fmt: skip
        return make_queue(base)(*sizes, adapter_dirs, input_params.fair_weights)

    get_scheduler.mope_original = theirs  # type: ignore[attr-defined]
    manager.get_scheduler = get_scheduler


def start_router_process(*args: Any) -> None:
    """S-LoRA's router in its own, spawned process: registered there, then theirs."""
    manager = import_module("slora.server.router.manager")
    register(manager)
    manager.start_router_process(*args)


def main() -> None:
    """Their API server with our router process."""
    import multiprocessing

    server = import_module("slora.server.api_server")
    server.start_router_process = start_router_process  # type: ignore[attr-defined]
    multiprocessing.set_start_method("spawn")
    server.main()


if __name__ == "__main__":
    from mope.serving_adapters import slora_adapter

    slora_adapter.main()  # so that the spawned process finds the function under its real name
