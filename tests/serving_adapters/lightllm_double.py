"""A double of LightLLM's requests and chunked-prefill queue, written from what they do, and a loop for both."""

from __future__ import annotations

from itertools import accumulate
from types import SimpleNamespace
from typing import Any


class Req:
    """What the router reads of a request; its true one lies in shared memory."""

    def __init__(self, tenant: str | None, request_id: int, input_len: int = 10, output: int = 16) -> None:
        self.request_id = self.group_req_id = request_id
        self.input_len, self.output = input_len, output
        self.shm_cur_output_len = self.shm_cur_kv_len = 0
        self.is_paused = self.is_aborted = self.shm_infer_released = False
        self.over = False
        self.finish_status = SimpleNamespace(is_finished=lambda: self.over)
        self.sample_params = SimpleNamespace(max_new_tokens=output, suggested_dp_index=0)
        self.multimodal_params = SimpleNamespace(mope_tenant=tenant)

    def get_tuple_tokens(self, is_busy: bool, router_max_new_token_len: int) -> tuple[int, int]:
        made = self.shm_cur_output_len
        return self.input_len + made + 1, max(0, self.sample_params.max_new_tokens - made - 1)

    def get_decode_need_tokens(self) -> int:
        return 1

    def get_first_router_need_tokens(self) -> int:
        return self.input_len + self.shm_cur_output_len


class Batch:
    """Of the double; the real queue makes real ones."""

    def __init__(self, reqs: list[Any]) -> None:
        self.reqs = reqs

    def get_batch_decode_need_tokens(self) -> list[int]:
        return [len(self.reqs)]


class ChunkedPrefillQueue:
    def __init__(self, args: Any, router: Any, dp_index: int, dp_size_in_node: int) -> None:
        self.max_total_tokens, self.batch_max_tokens = args.max_total_token_num, args.batch_max_tokens
        self.running_max_req_size, self.router = args.running_max_req_size, router
        self.waiting_req_list: list[Any] = []
        self.pause_req_dict: dict[int, Any] = {}

    def append(self, req: Any) -> None:
        self.waiting_req_list.append(req)

    def extend(self, req_group: list[Any]) -> None:
        self.waiting_req_list.extend(req_group)

    def back_to_wait_list(self, req_list: list[Any]) -> None:
        self.pause_req_dict |= {req.request_id: req for req in req_list if req.is_paused}
        self.waiting_req_list = req_list + self.waiting_req_list

    def get_batch_dp_req_size(self, current_batch: Any) -> int:
        return 0 if current_batch is None else len(current_batch.reqs)

    def generate_new_batch(self, current_batch: Any, limit_router_queue_length: int | None = None) -> Any:
        running = [] if current_batch is None else current_batch.reqs
        if len(running) + len(self.pause_req_dict) >= self.running_max_req_size:
            return None
        held = [req.get_tuple_tokens(False, 1024) for req in running]
        tokens, taken, aborted = len(running), [], []
        for req in self.waiting_req_list[:limit_router_queue_length]:
            if req.is_aborted and not req.is_paused:
                aborted.append(req)
                continue
            held.append(req.get_tuple_tokens(False, 1024))
            held.sort(key=lambda one: -one[1])
            sums = accumulate(now for now, _ in held)
            need = max(left * n + now for n, ((_, left), now) in enumerate(zip(held, sums, strict=True), 1))
            tokens += req.get_first_router_need_tokens()
            others = len(held) + len(self.pause_req_dict) - req.is_paused
            if (
                need >= self.max_total_tokens
                or others > self.running_max_req_size
                or tokens > self.batch_max_tokens
            ):
                break
            taken.append(req)
            if req.is_paused:
                del self.pause_req_dict[req.request_id]
                req.is_paused = False
        if not taken:
            return None
        for req in aborted:
            self.router.shm_req_manager.put_back_req_obj(req)
        self.waiting_req_list = self.waiting_req_list[len(taken) + len(aborted) :]
        return Batch(taken)


def arguments(running: int, total: int = 4000, batch: int = 4000) -> Any:
    return SimpleNamespace(
        max_total_token_num=total, batch_max_tokens=batch, running_max_req_size=running,
        router_token_ratio=0.0, router_max_new_token_len=1024,
    )  # fmt: skip


def router() -> Any:
    """What a queue asks of its router: shared counters that say that nothing else is there."""
    nothing = SimpleNamespace(
        get_frozened_token_count=lambda dp: 0,
        set_estimated_peak_token_count=lambda count, dp: None,
        set_dynamic_max_load=lambda load, dp: None,
    )
    put_back: list[Any] = []
    return SimpleNamespace(
        shared_token_load=nothing,
        get_used_tokens=lambda dp: 0,
        shm_req_manager=SimpleNamespace(put_back_req_obj=put_back.append),
        put_back=put_back,
    )


def drive(queue: Any, arrivals: list[tuple[int, Any]], pause_at: int | None = None) -> dict[int, int]:
    """One token of every running request a step; the last admitted group is paused in step `pause_at`."""
    running: Any = None
    ends: dict[int, int] = {}
    step, arrivals = 0, list(arrivals)
    while arrivals or running is not None or queue.waiting_req_list:
        while arrivals and arrivals[0][0] <= step:
            queue.extend([arrivals.pop(0)[1]])
        if step == pause_at and running is not None:
            paused = running.reqs.pop()
            paused.is_paused = True
            queue.back_to_wait_list([paused])
        new = queue.generate_new_batch(running)
        if new is None and running is None and not arrivals:
            break
        if new is not None:
            if running is None:
                running = new
            else:
                running.reqs += new.reqs
        step += 1
        for req in () if running is None else running.reqs:
            req.shm_cur_output_len += 1
            req.shm_cur_kv_len = req.input_len + req.shm_cur_output_len
            if req.shm_cur_output_len >= req.output or req.is_aborted:
                req.over = not req.is_aborted
                req.shm_infer_released = True
                ends[req.request_id] = step
        if running is not None:
            running.reqs = [req for req in running.reqs if not req.shm_infer_released]
            running = running if running.reqs else None
    return ends
