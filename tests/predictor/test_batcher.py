"""The batcher: what goes together, what comes too late, and no future that is never resolved."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent.futures import CancelledError, wait

import pytest

from mope.errors import ConfigError, LateForecast, Overloaded, PromptError
from mope.predictor.batcher import Batcher, BatcherConfig
from mope.types import LengthForecast, Request

LONG_US = 60e6  # a window that no test waits out


def answer(request: Request) -> LengthForecast:
    """A forecast that says whose it is."""
    return LengthForecast(float(request.id), 0, 0, (), (), "short", (1.0, 0.0, 0.0))


class Predictor:
    """Notes its batches; waits for `gate` before it answers."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.gate.set()

    def __call__(self, requests: list[Request]) -> list[LengthForecast]:
        self.batches.append([request.id for request in requests])
        self.entered.set()
        self.gate.wait(30)
        if any(request.prompt == "bad" for request in requests):
            raise PromptError("a bad prompt")
        return [answer(request) for request in requests]

    def hold(self, batcher: Batcher):
        """Keep the thread busy with a request of its own."""
        self.gate.clear()
        self.entered.clear()
        first = batcher.submit(Request("x", id="0"))
        assert self.entered.wait(30)
        return first


def requests(n: int, prompt: str = "hi") -> list[Request]:
    return [Request(prompt, id=str(i + 1)) for i in range(n)]


def test_a_full_batch_goes_at_once():
    seen = Predictor()
    with Batcher(seen, BatcherConfig(window_us=LONG_US, max_requests=3)) as batcher:
        futures = [batcher.submit(request) for request in requests(3)]
        assert [future.result(30).tokens for future in futures] == [1, 2, 3]
    assert seen.batches == [["1", "2", "3"]]


def test_a_batch_full_of_tokens_goes_at_once():
    seen = Predictor()
    config = BatcherConfig(window_us=LONG_US, max_tokens=10)
    with Batcher(seen, config, size=lambda request: 5) as batcher:
        assert wait([batcher.submit(request) for request in requests(2)], 30).not_done == set()
    assert seen.batches == [["1", "2"]]


def test_one_request_larger_than_a_batch_goes_alone():
    seen = Predictor()
    with Batcher(seen, BatcherConfig(max_tokens=10), size=lambda request: 99) as batcher:
        assert [batcher.forecast(request).tokens for request in requests(2)] == [1, 2]
    assert seen.batches == [["1"], ["2"]]


def test_the_window_ends():
    seen = Predictor()
    with Batcher(seen, BatcherConfig(window_us=2000)) as batcher:
        assert batcher.submit(requests(1)[0]).result(30).tokens == 1


def test_what_came_while_it_computed_goes_together_and_in_order():
    seen = Predictor()
    with Batcher(seen, BatcherConfig(window_us=0)) as batcher:
        first = seen.hold(batcher)
        futures = [batcher.submit(request) for request in requests(4)]
        seen.gate.set()
        assert [future.result(30).tokens for future in [first, *futures]] == [0, 1, 2, 3, 4]
    assert seen.batches == [["0"], ["1", "2", "3", "4"]]


def test_a_full_queue_refuses():
    seen = Predictor()
    with Batcher(seen, BatcherConfig(window_us=0, max_waiting=2)) as batcher:
        seen.hold(batcher)
        for request in requests(2):
            batcher.submit(request)
        with pytest.raises(Overloaded, match="too many"):
            batcher.submit(Request("x"))
        seen.gate.set()
    counts = batcher.counts
    assert (counts.submitted, counts.served, counts.refused) == (3, 3, 1)


def test_what_is_late_already_is_not_computed():
    seen, now = Predictor(), [0.0]
    with Batcher(seen, BatcherConfig(window_us=0), clock=lambda: now[0]) as batcher:
        first = seen.hold(batcher)
        late, fine = batcher.submit(Request("x", id="1"), 5.0), batcher.submit(Request("x", id="2"), 5000.0)
        now[0] = 0.1
        seen.gate.set()
        with pytest.raises(LateForecast):
            late.result(30)
        assert fine.result(30).tokens == 2
        assert first.result(30).tokens == 0
    assert seen.batches == [["0"], ["2"]]
    assert batcher.counts.late == 1


def test_what_is_computed_too_late_is_dropped():
    seen, now = Predictor(), [0.0]
    config = BatcherConfig(window_us=0, deadline_ms=5.0)
    with Batcher(seen, config, clock=lambda: now[0]) as batcher:
        first = seen.hold(batcher)
        now[0] = 0.006
        seen.gate.set()
        with pytest.raises(LateForecast, match="late"):
            first.result(30)


def test_who_waits_is_told_at_the_deadline_not_after_the_batch():
    seen = Predictor()
    with Batcher(seen, BatcherConfig(window_us=0)) as batcher:
        seen.hold(batcher)
        with pytest.raises(LateForecast):
            batcher.forecast(Request("x", id="1"), deadline_ms=1.0)
        with pytest.raises(LateForecast):
            asyncio.run(batcher.aforecast(Request("x", id="2"), deadline_ms=1.0))
        seen.gate.set()
    assert seen.batches == [["0"]]  # both were given up before their batch
    assert batcher.counts.cancelled == 2


def test_a_bad_request_does_not_fail_its_neighbours():
    seen = Predictor()
    with Batcher(seen, BatcherConfig(window_us=LONG_US, max_requests=3)) as batcher:
        futures = [
            batcher.submit(r) for r in (Request("a", id="1"), Request("bad", id="2"), Request("c", id="3"))
        ]
        assert futures[0].result(30).tokens == 1
        assert futures[2].result(30).tokens == 3
        with pytest.raises(PromptError):
            futures[1].result(30)


def test_a_wrong_number_of_forecasts_is_an_error():
    with Batcher(lambda _: [], BatcherConfig(window_us=0)) as batcher:
        error = batcher.submit(Request("x")).exception(30)
    assert isinstance(error, ValueError)
    assert "0 forecasts for 1" in str(error)


def test_a_cancelled_request_is_not_computed():
    seen = Predictor()
    with Batcher(seen, BatcherConfig(window_us=0)) as batcher:
        seen.hold(batcher)
        gone, kept = (batcher.submit(request) for request in requests(2))
        assert gone.cancel()
        seen.gate.set()
        assert kept.result(30).tokens == 2
    assert seen.batches == [["0"], ["2"]]


def test_closing_serves_what_waits():
    seen = Predictor()
    batcher = Batcher(seen, BatcherConfig(window_us=LONG_US))
    futures = [batcher.submit(request) for request in requests(5)]
    batcher.close()
    assert [future.result(0).tokens for future in futures] == [1, 2, 3, 4, 5]
    with pytest.raises(Overloaded, match="closed"):
        batcher.submit(Request("x"))
    batcher.close()
    assert not batcher._thread.is_alive()


def test_closing_without_draining_fails_what_waits():
    seen = Predictor()
    batcher = Batcher(seen, BatcherConfig(window_us=LONG_US))
    futures = [batcher.submit(request) for request in requests(2)]
    batcher.close(drain=False)
    for future in futures:
        with pytest.raises(Overloaded, match="closed"):
            future.result(0)
    assert seen.batches == []


def test_a_thread_that_dies_leaves_nobody_waiting():
    release = threading.Event()

    def predict(_: list[Request]) -> list[LengthForecast]:
        release.wait(30)
        raise SystemExit

    batcher = Batcher(predict, BatcherConfig(window_us=0, max_requests=1))
    running, waiting = (batcher.submit(request) for request in requests(2))
    release.set()
    with pytest.raises(SystemExit):
        running.result(30)
    with pytest.raises(Overloaded, match="ended"):
        waiting.result(30)
    with pytest.raises(Overloaded):
        batcher.submit(Request("x"))
    batcher.close()


@pytest.mark.parametrize(
    "wrong",
    [{"window_us": -1.0}, {"max_requests": 0}, {"max_tokens": 0}, {"max_waiting": 0}, {"deadline_ms": 0.0}],
)
def test_limits_that_cannot_work(wrong):
    with pytest.raises(ConfigError):
        BatcherConfig(**wrong)


@pytest.mark.parametrize("seed", range(3))
def test_stress_every_future_is_resolved_once_with_its_own_answer(seed):
    """Threads and coroutines at once: answers, late ones, cancelled ones, refused ones, bad ones, and a close."""
    rng = random.Random(seed)
    moods = {}

    def predict(batch: list[Request]) -> list[LengthForecast]:
        assert 0 < len(batch) <= 16
        time.sleep(rng.choice([0, 0, 1e-4, 2e-3]))
        if any(request.prompt == "bad" for request in batch):
            raise PromptError("a bad prompt")
        return [answer(request) for request in batch]

    batcher = Batcher(predict, BatcherConfig(window_us=100, max_requests=16, max_waiting=40))
    lock = threading.Lock()

    def note(name: str, outcome: str) -> None:
        with lock:
            assert name not in moods, "resolved twice"
            moods[name] = outcome

    def told(name: str, error: BaseException) -> str:
        return {LateForecast: "late", PromptError: "bad", Overloaded: "refused", CancelledError: "cancelled"}[
            type(error)
        ]

    def caller(worker: int) -> None:
        own = random.Random(1000 * seed + worker)
        for i in range(60):
            name = str(worker * 1000 + i)
            request = Request(own.choice(["ok", "ok", "ok", "bad"]), id=name)
            limit = own.choice([None, None, 0.05, 1.0])
            try:
                future = batcher.submit(request, limit)
                if own.random() < 0.1 and future.cancel():
                    note(name, "cancelled")
                    continue
                assert future.result(30).tokens == int(name)
                note(name, "served")
            except (LateForecast, PromptError, Overloaded, CancelledError) as error:
                note(name, told(name, error))

    async def coroutine(name: str, own: random.Random) -> None:
        await asyncio.sleep(own.random() * 0.02)
        task = asyncio.ensure_future(batcher.aforecast(Request("ok", id=name), own.choice([None, 0.5])))
        if own.random() < 0.1:
            await asyncio.sleep(0)
            task.cancel()
        try:
            assert (await task).tokens == int(name)
            note(name, "served")
        except asyncio.CancelledError:
            note(name, "cancelled")
        except (LateForecast, Overloaded) as error:
            note(name, told(name, error))

    async def many() -> None:
        own = random.Random(seed)
        await asyncio.gather(*(coroutine(str(90_000 + i), own) for i in range(120)))

    threads = [threading.Thread(target=caller, args=(worker,)) for worker in range(6)]
    loop = threading.Thread(target=lambda: asyncio.run(many()))
    for thread in (*threads, loop):
        thread.start()
    if seed == 2:
        time.sleep(0.01)
        batcher.close(drain=False)
    for thread in (*threads, loop):
        thread.join(60)
        assert not thread.is_alive()
    batcher.close()
    assert len(moods) == 6 * 60 + 120
    counts = batcher.counts
    assert counts.submitted == counts.served + counts.late + counts.failed + counts.cancelled
    assert counts.submitted + counts.refused == len(moods)
    if seed < 2:
        assert "served" in moods.values()
