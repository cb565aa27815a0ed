"""A small faithful double of vLLM's scheduler: queues, peek then pop, blocked requests put back, preemption.

Written after what `docs/vllm.md` says of it; the real one is tested by `make test-vllm`.
"""

from __future__ import annotations

import heapq
import sys
from abc import ABC
from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum, IntEnum, auto
from types import ModuleType, SimpleNamespace
from typing import Any


class SchedulingPolicy(Enum):
    FCFS = "fcfs"
    PRIORITY = "priority"


class RequestStatus(IntEnum):
    WAITING = auto()
    BLOCKED = auto()
    RUNNING = auto()
    PREEMPTED = auto()
    FINISHED_STOPPED = auto()
    FINISHED_ABORTED = auto()


class RequestQueue(ABC):  # noqa: B024 - as in vLLM, others are registered with it
    """Only there to be registered with."""


class FcfsQueue(deque[Any], RequestQueue):
    def add_request(self, request: Any) -> None:
        self.append(request)

    def pop_request(self) -> Any:
        return self.popleft()

    def peek_request(self) -> Any:
        return self[0]

    def prepend_request(self, request: Any) -> None:
        self.appendleft(request)

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        self.extendleft(requests)

    def remove_request(self, request: Any) -> None:
        self.remove(request)

    def remove_requests(self, requests: Iterable[Any]) -> None:
        gone = list(requests)
        kept = [one for one in self if one not in gone]
        self.clear()
        self.extend(kept)


class PriorityQueue(RequestQueue):
    def __init__(self) -> None:
        self.heap: list[Any] = []

    def add_request(self, request: Any) -> None:
        heapq.heappush(self.heap, request)

    prepend_request = add_request

    def pop_request(self) -> Any:
        return heapq.heappop(self.heap)

    def peek_request(self) -> Any:
        return self.heap[0]

    def remove_requests(self, requests: Iterable[Any]) -> None:
        gone = list(requests)
        self.heap = [one for one in self.heap if one not in gone]
        heapq.heapify(self.heap)

    def remove_request(self, request: Any) -> None:
        self.remove_requests([request])

    def __len__(self) -> int:
        return len(self.heap)

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(self.heap))


def create_request_queue(policy: SchedulingPolicy) -> Any:
    return PriorityQueue() if policy is SchedulingPolicy.PRIORITY else FcfsQueue()


class Request:
    """`length` is how many tokens it will make; the scheduler must not look at it."""

    def __init__(
        self, request_id: str, tenant: object = None, prompt: int = 4, length: int = 4, *,
        priority: int = 0, max_tokens: int = 64, forecast: object = None, salt: str | None = None, lora: str = "",
    ) -> None:  # fmt: skip
        self.request_id, self.priority, self.length, self.max_tokens = (
            request_id,
            priority,
            length,
            max_tokens,
        )
        args: dict[str, object] = {} if tenant is None else {"tenant": tenant}
        if forecast is not None:
            args["predicted_tokens"] = forecast
        self.sampling_params = SimpleNamespace(extra_args=args or None)
        self.lora_request = SimpleNamespace(lora_name=lora) if lora else None
        self.cache_salt = salt
        self.num_prompt_tokens, self.num_output_tokens = prompt, 0
        self.prompt_token_ids = list(range(prompt))
        self.arrival_time = 0.0
        self.status = RequestStatus.WAITING

    def __lt__(self, other: Request) -> bool:
        return (self.priority, self.arrival_time) < (other.priority, other.arrival_time)


class Scheduler:
    """One token a step for each running request; `room` KV tokens, `seats` running at most."""

    def __init__(self, *, room: int = 10**9, seats: int = 2, policy: str = "fcfs", **_: Any) -> None:
        self.policy = SchedulingPolicy(policy)
        self.waiting: Any = create_request_queue(self.policy)
        self.running: list[Request] = []
        self.requests: dict[str, Request] = {}
        self.finished_req_ids: set[str] = set()
        self.room, self.seats = room, seats
        self.arrived = 0

    def add_request(self, request: Request) -> None:
        self.arrived += 1
        request.arrival_time = self.arrived
        self.requests[request.request_id] = request
        self.waiting.add_request(request)

    def _held(self) -> int:
        return sum(one.num_prompt_tokens + one.num_output_tokens + 1 for one in self.running)

    def _preempt(self) -> None:
        if self.policy is SchedulingPolicy.PRIORITY:
            victim = max(self.running, key=lambda one: (one.priority, one.arrival_time))
        else:
            victim = self.running[-1]
        self.running.remove(victim)
        victim.status = RequestStatus.PREEMPTED
        self.waiting.prepend_request(victim)

    def schedule(self) -> Any:
        new, resumed, preempted = [], [], False
        while self._held() > self.room:
            self._preempt()
            preempted = True
        skipped: deque[Request] = deque()
        while not preempted and self.waiting and len(self.running) < self.seats:
            request = self.waiting.peek_request()
            if request.status is RequestStatus.BLOCKED:
                assert self.waiting.pop_request() is request
                skipped.appendleft(request)
                continue
            if self._held() + request.num_prompt_tokens + request.num_output_tokens + 1 > self.room:
                break
            assert self.waiting.pop_request() is request, "peek and pop disagree"
            (new if request.status is RequestStatus.WAITING else resumed).append(request)
            request.status = RequestStatus.RUNNING
            self.running.append(request)
        if skipped:
            self.waiting.prepend_requests(skipped)
        output = SimpleNamespace(
            num_scheduled_tokens={one.request_id: 1 for one in self.running},
            scheduled_new_reqs=[SimpleNamespace(req_id=one.request_id) for one in new],
            scheduled_cached_reqs=SimpleNamespace(resumed_req_ids={one.request_id for one in resumed}),
            finished_req_ids=self.finished_req_ids,
        )
        self.finished_req_ids = set()
        return output

    def update_from_output(self, output: Any, _: Any = None) -> list[str]:
        for request in list(self.running):
            if request.request_id in output.num_scheduled_tokens:
                request.num_output_tokens += 1
                if request.num_output_tokens >= request.length:
                    self.running.remove(request)
                    self._free(request, RequestStatus.FINISHED_STOPPED)
        return sorted(self.finished_req_ids)

    def finish_requests(self, ids: Iterable[str], status: RequestStatus) -> None:
        found = [self.requests[one] for one in ids if one in self.requests]
        self.running = [one for one in self.running if one not in found]
        self.waiting.remove_requests([one for one in found if one.status is not RequestStatus.RUNNING])
        for request in found:
            self._free(request, status)

    def _free(self, request: Request, status: RequestStatus) -> None:
        request.status = status
        self.finished_req_ids.add(request.request_id)
        del self.requests[request.request_id]

    def step(self) -> list[str]:
        return self.update_from_output(self.schedule())


def install(monkeypatch: Any) -> None:
    """Have `import vllm...` find the double."""
    for name in ("vllm", "vllm.v1", "vllm.v1.core", "vllm.v1.core.sched"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    queues = ModuleType("vllm.v1.core.sched.request_queue")
    queues.RequestQueue, queues.SchedulingPolicy = RequestQueue, SchedulingPolicy  # type: ignore[attr-defined]
    queues.create_request_queue = create_request_queue  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, queues.__name__, queues)


def run(scheduler: Any, requests: Iterable[Request], limit: int = 10_000) -> dict[str, int]:
    """Add all, step until nothing is left; id -> step in which it ended."""
    for request in requests:
        scheduler.add_request(request)
    ended: dict[str, int] = {}
    for step in range(1, limit):
        ended |= dict.fromkeys(scheduler.step(), step)
        if not scheduler.requests:
            scheduler.schedule()
            return ended
    raise AssertionError("requests are left")
