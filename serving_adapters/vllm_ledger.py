"""What a scheduler of vLLM has open, told to a `Controller` in its words. Imports nothing of vLLM.

A request that is popped is charged at once, because the next pop of the same step has to know; where it turns out
not to have been scheduled, the charge is taken back. Tokens are read from running requests when somebody is to be
chosen, never in steps in which nobody is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable
from typing import Any

from mope.serving_adapters.base import Controller
from mope.serving_adapters.guard import guarded, nothing
from mope.serving_adapters.vllm_carriers import forecast_of

PREEMPTED = "PREEMPTED"
ABORTED = ("FINISHED_ABORTED", "FINISHED_ERROR", "FINISHED_IGNORED")
UNKNOWN = "default"  # has the queue of requests that could not be read
CLASSES = 2**20  # fair ranks between two priorities of the engine's own


class Open:
    """One request: the tenant it is charged to, output tokens up to which its charge stands, its own priority.

    `written` is what stands in the request's `priority` as far as we know.
    """

    __slots__ = ("due", "priority", "request", "tenant", "written")

    def __init__(self, request: Any, tenant: str) -> None:
        self.request, self.tenant = request, tenant
        self.due = 0.0
        self.priority = self.written = request.priority

    def write(self, classes: int = 1, rank: int = 0) -> None:
        """Put `classes` times its own priority, and `rank`, into the request; its own is what others wrote last."""
        if self.request.priority != self.written:
            self.priority = self.request.priority
        self.request.priority = self.written = self.priority * classes + rank


class Ledger:
    """Open requests by id: `open` all of them, `running` those that are charged, `held` those popped in this step.

    `tenant_of` reads the tenant from a request; `prompt_of` gives what makes its text, for forecasts.
    """

    def __init__(
        self,
        controller: Controller,
        tenant_of: Callable[[Any], object],
        prompt_of: Callable[[Any], Callable[[], str]] | None = None,
    ) -> None:
        self.controller = controller
        self.open: dict[str, Open] = {}
        self.running: dict[str, Open] = {}
        self.held: dict[str, Open] = {}
        self._tenant_of, self._prompt_of = tenant_of, prompt_of
        self._told = False  # whether tokens were told in this step

    @guarded(lambda _: UNKNOWN)
    def arrive(self, request: Any) -> str:
        """A request waits, for the first time or again; the tenant whose queue it belongs to."""
        known = self.open.get(request.request_id)
        if known is not None:
            self.back(request)
            return known.tenant
        controller = self.controller
        tenant = controller.arrive(
            request.request_id,
            self._tenant_of(request),
            request.num_prompt_tokens,
            request.max_tokens,
            prompt=None if self._prompt_of is None else self._prompt_of(request),
            forecast=forecast_of(request, controller.settings.forecast_key),
        )
        self.open[request.request_id] = Open(request, tenant)
        return tenant

    def tenant(self, request: Any) -> str:
        """The tenant whose queue an open request belongs to."""
        known = self.open.get(request.request_id)
        return UNKNOWN if known is None else known.tenant

    @guarded(nothing)
    def popped(self, request: Any) -> None:
        """The engine took a request from its queue, to start it or to put it back."""
        request_id = request.request_id
        known = self.open.get(request_id)
        if known is not None and request_id not in self.running:
            self.held[request_id] = known
            self._start(request_id, known)

    @guarded(nothing)
    def back(self, request: Any) -> None:
        """A request was put back: preempted, or not started after all."""
        request_id = request.request_id
        self.held.pop(request_id, None)
        known = self.running.pop(request_id, None)
        if known is None:
            return
        known.write()
        self.controller.tokens(request_id, request.num_output_tokens)
        if request.status.name == PREEMPTED:
            self.controller.preempt(request_id)
        else:
            self.controller.put_back(request_id)

    def turn(self, among: Container[str]) -> str | None:
        """The tenant to serve next of those `among`."""
        if not self._told:
            self._tell()
        turn: str | None = self.controller.pick(among)
        return turn

    @guarded(nothing)
    def begin(self, finished: Collection[str]) -> None:
        """A step begins; `finished` has ended since the last one."""
        if finished:
            self.settle(finished)
        self.controller.step()
        self._told = False

    @guarded(nothing)
    def end(self, output: Any) -> None:
        """A step was scheduled: what was popped and not scheduled is given back, what was scheduled is charged."""
        scheduled = output.num_scheduled_tokens
        if self.held:
            for request_id, known in list(self.held.items()):
                if request_id not in scheduled:
                    self.back(known.request)
            self.held.clear()
        for data in output.scheduled_new_reqs:
            self._started(data.req_id)
        for request_id in output.scheduled_cached_reqs.resumed_req_ids:
            self._started(request_id)

    @guarded(nothing)
    def settle(self, finished: Iterable[str]) -> None:
        """These requests are over: charge what they were."""
        for request_id in finished:
            known = self.open.pop(request_id, None)
            if known is None:
                continue
            self.running.pop(request_id, None)
            self.held.pop(request_id, None)
            request = known.request
            known.write()
            reason = request.status.name
            if reason in ABORTED:
                self.controller.tokens(request_id, request.num_output_tokens)
                self.controller.abort(request_id)
            else:
                self.controller.finish(request_id, request.num_output_tokens, reason)

    @guarded(nothing)
    def rank(self, running: Iterable[Any]) -> None:
        """Have the engine, which preempts the largest priority, preempt whose tenant was served most.

        The engine's own priorities stay above: fairness decides within one of them.
        """
        tenants = {known.tenant for known in self.running.values()}
        ranks = {tenant: rank for rank, tenant in enumerate(sorted(tenants, key=self._served))}
        for request in running:
            known = self.running.get(request.request_id)
            if known is not None:
                known.write(CLASSES, ranks[known.tenant])

    def failed(self, call: str, error: Exception) -> None:
        """Count and log a failure of ours."""
        self.controller.failed(f"ledger_{call}", error)

    def _served(self, tenant: str) -> tuple[int, str]:
        return self.controller.score(tenant), tenant

    def _started(self, request_id: str) -> None:
        """It runs, from whatever queue it came."""
        known = self.open.get(request_id)
        if known is not None and request_id not in self.running:
            self._start(request_id, known)

    def _start(self, request_id: str, known: Open) -> None:
        self.running[request_id] = known
        self.controller.admit(request_id)
        known.due = self.controller.foreseen(request_id)

    def _tell(self) -> None:
        """Tell of running requests that have made more than they are charged for."""
        self._told = True
        controller = self.controller
        for request_id, known in self.running.items():
            made = known.request.num_output_tokens
            if made > known.due:
                controller.tokens(request_id, made)
                known.due = max(made, controller.foreseen(request_id))
