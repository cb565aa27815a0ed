"""vLLM's waiting queue with one of its own queues for each tenant, in the order the ledger says.

Everything of one tenant is in a queue that vLLM made, so with one tenant this is vLLM's queue. Between a `peek` and
the `pop` after it nothing is ranked anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mope.serving_adapters.vllm_ledger import Ledger


class FairQueue:
    """A `vllm.v1.core.sched.request_queue.RequestQueue`; `make` makes the queue of one tenant."""

    def __init__(self, ledger: Ledger, make: Callable[[], Any]) -> None:
        self._ledger, self._make = ledger, make
        self._queues: dict[str, Any] = {}  # none of them empty
        self._turn: str | None = None  # of the last peek, until its pop
        self._length = 0

    def add_request(self, request: Any) -> None:
        """Queue a request behind its tenant's others."""
        self._queue(self._ledger.arrive(request)).add_request(request)
        self._length += 1

    def prepend_request(self, request: Any) -> None:
        """Put a request back in front of its tenant's others: it was preempted, or could not start yet."""
        self._queue(self._ledger.arrive(request)).prepend_request(request)
        self._length += 1

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Put requests back one by one, as vLLM does: the last comes to stand first."""
        for request in requests:
            self.prepend_request(request)

    def peek_request(self) -> Any:
        """The request to start next. Raises `IndexError` where there is none."""
        return self._queues[self._next()].peek_request()

    def pop_request(self) -> Any:
        """Take out what `peek_request` shows. Raises `IndexError` where there is none."""
        tenant = self._next()
        request = self._queues[tenant].pop_request()
        self._length -= 1
        self._turn = None
        if not self._queues[tenant]:
            del self._queues[tenant]
        self._ledger.popped(request)
        return request

    def remove_request(self, request: Any) -> None:
        """Take a request out. Raises `ValueError` where it is not in here, as vLLM's queues do."""
        tenant = self._ledger.tenant(request)
        if tenant not in self._queues:
            raise ValueError(f"request {request.request_id} is not in the queue")
        self._queues[tenant].remove_request(request)
        self._shrink(tenant, 1)

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Take out those of these requests that are in here."""
        by_tenant: dict[str, list[Any]] = {}
        for request in requests:
            tenant = self._ledger.tenant(request)
            if tenant in self._queues:
                by_tenant.setdefault(tenant, []).append(request)
        for tenant, found in by_tenant.items():
            before = len(self._queues[tenant])
            self._queues[tenant].remove_requests(found)
            self._shrink(tenant, before - len(self._queues[tenant]))

    def again(self) -> None:
        """A new step: choose anew whose turn it is."""
        self._turn = None

    def __bool__(self) -> bool:
        return self._length > 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        """Tenant by tenant, who was served least first."""
        served = self._ledger.controller.score
        for tenant in sorted(self._queues, key=served):  # ties stay in the order they came
            yield from self._queues[tenant]

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self)[::-1])

    def __getitem__(self, place: Any) -> Any:
        return list(self)[place]

    def _queue(self, tenant: str) -> Any:
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = self._make()
        return queue

    def _next(self) -> str:
        """Whose turn it is; the first that came where the scheduler of ours has no answer."""
        if self._turn is None or self._turn not in self._queues:
            if not self._queues:
                raise IndexError("the queue is empty")
            turn = self._ledger.turn(self._queues) if len(self._queues) > 1 else None
            self._turn = turn if turn in self._queues else next(iter(self._queues))
        return self._turn

    def _shrink(self, tenant: str, count: int) -> None:
        self._length -= count
        if not self._queues[tenant]:
            del self._queues[tenant]
