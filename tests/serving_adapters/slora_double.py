"""A double of the router's interface in S-LoRA and VTC-artifact, written from what it does: requests, batches, queues
and the loop that drives them. `ReqQueue` admits first come first served, `VtcReqQueue` by plain VTC."""

from __future__ import annotations

from itertools import accumulate
from typing import Any


class Req:
    def __init__(self, adapter_dir: str | None, request_id: str, input_len: int, output_len: int) -> None:
        self.adapter_dir, self.request_id = adapter_dir, request_id
        self.input_len, self.max_output_len = input_len, output_len
        self.output_ids: list[int] = []
        self.has_generate_finished = self.aborted = False


class Batch:
    def __init__(self, reqs: list[Any]) -> None:
        self.reqs = reqs


class ReqQueue:
    def __init__(self, max_total_tokens: int, batch_max_tokens: int, running_max_req_size: int) -> None:
        self.max_total_tokens, self.batch_max_tokens = max_total_tokens, batch_max_tokens
        self.running_max_req_size = running_max_req_size
        self.waiting_req_list: list[Any] = []

    def append(self, req: Any) -> None:
        self.waiting_req_list.append(req)

    def update_counter(self, current_batch: Any) -> None:
        pass

    def _init_cache_list(self, current_batch: Any, lora_ranks: dict[Any, int]) -> None:
        reqs = [] if current_batch is None else current_batch.reqs
        self.held = [
            (one.input_len + len(one.output_ids), one.max_output_len - len(one.output_ids) - 1)
            for one in reqs
        ]
        self.adapters = {one.adapter_dir for one in reqs}

    def _can_add_new_req(self, req: Any, lora_ranks: dict[Any, int]) -> bool:
        """Whether the most tokens ever held at once fit, should every request make all its output."""
        self.held.append((req.input_len + 1, req.max_output_len - 1))
        self.held.sort(key=lambda one: -one[1])
        self.adapters.add(req.adapter_dir)
        sums = accumulate(now for now, _ in self.held)
        need = max(
            left * count + now for count, ((_, left), now) in enumerate(zip(self.held, sums, strict=True), 1)
        )
        free = self.max_total_tokens - 4 * sum(lora_ranks[place] for place in self.adapters)
        return need < free and len(self.held) <= self.running_max_req_size

    def generate_new_batch(self, current_batch: Any, lora_ranks: dict[Any, int]) -> Batch | None:
        if current_batch is not None and len(current_batch.reqs) >= self.running_max_req_size:
            return None
        self._init_cache_list(current_batch, lora_ranks)
        taken: list[Any] = []
        aborted = tokens = 0
        for req in self.waiting_req_list:
            if req.aborted:
                aborted += 1
                continue
            if not self._can_add_new_req(req, lora_ranks) or tokens + req.input_len > self.batch_max_tokens:
                break
            taken.append(req)
            tokens += req.input_len
        if not taken:
            return None
        self.waiting_req_list = self.waiting_req_list[
            len(taken) + aborted :
        ]  # so the aborted must come first
        return Batch(taken)

    def next_batch(self) -> Batch | None:
        reqs = [req for req in self.waiting_req_list if not req.aborted]
        return Batch(reqs[:1]) if reqs else None


class VtcReqQueue(ReqQueue):
    """Plain VTC: prompts are charged at admission, output token by token at 2; an empty queue is lifted."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.served: dict[Any, float] = {}

    def append(self, req: Any) -> None:
        waiting = {one.adapter_dir for one in self.waiting_req_list}
        if req.adapter_dir not in waiting and waiting:
            least = min(self.served[place] for place in waiting)
            self.served[req.adapter_dir] = max(self.served.get(req.adapter_dir, 0.0), least)
        self.served.setdefault(req.adapter_dir, 0.0)
        super().append(req)

    def update_counter(self, current_batch: Any) -> None:
        for req in current_batch.reqs:
            self.served[req.adapter_dir] += 2

    def generate_new_batch(self, current_batch: Any, lora_ranks: dict[Any, int]) -> Batch | None:
        served, queue, order = dict(self.served), list(self.waiting_req_list), []
        while queue:
            place = min({one.adapter_dir for one in queue}, key=lambda name: (served[name], name))
            req = next(one for one in queue if one.adapter_dir == place)
            queue.remove(req)
            order.append(req)
            served[place] += req.input_len
        self.waiting_req_list = order
        batch = super().generate_new_batch(current_batch, lora_ranks)
        for req in () if batch is None else batch.reqs:
            self.served[req.adapter_dir] += req.input_len
        return batch


def drive(queue: Any, arrivals: list[tuple[int, Any]], every: int = 10, batch: Any = None) -> dict[str, int]:
    """The router's loop: prefill what is admitted, then up to `every` decodes before it asks again.

    `arrivals` are (step, request) in order. Returns the step, prefill or decode, in which each request ended.
    """
    running: Any = batch
    ends: dict[str, int] = {}
    step = waited = 0
    arrivals, ranks = list(arrivals), _Ranks()

    def make(some: Any) -> None:
        nonlocal step
        step += 1
        for req in some.reqs:
            req.output_ids.append(1)
            if len(req.output_ids) >= req.max_output_len or req.aborted:
                req.has_generate_finished = True
                ends[req.request_id] = step
        if any(req.has_generate_finished for req in some.reqs):
            queue.update_counter(some)
            some.reqs = [req for req in some.reqs if not req.has_generate_finished]

    while arrivals or running is not None or queue.waiting_req_list:
        while arrivals and arrivals[0][0] <= step:
            queue.append(arrivals.pop(0)[1])
        if running is None or waited >= every:
            new = queue.generate_new_batch(running, ranks)
            if new is not None:
                make(new)
                if running is None:
                    running = new
                else:
                    running.reqs += new.reqs
                waited = 0
            elif running is None:
                if not arrivals:
                    break
                step += 1
                continue
        if running is not None and running.reqs:
            queue.update_counter(running)
            make(running)
            waited += 1
        if running is not None and not running.reqs:
            running = None
    return ends


class _Ranks(dict[Any, int]):
    def __missing__(self, key: Any) -> int:
        return 0 if key is None else 8
