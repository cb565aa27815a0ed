"""For servers: forecasts asked one by one from many threads or coroutines, computed in batches by one thread.

Start reading at `_work`. A forecast is advice: where it would come too late or the queue is full the caller gets an
error at once and goes on without.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedTooLong
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mope.errors import ConfigError, LateForecast, Overloaded
from mope.types import LengthForecast, Request

if TYPE_CHECKING:
    from mope.predictor.bundle import MoPE

CHARS_PER_TOKEN = 4  # of a prompt, when its size is guessed without a tokenizer


@dataclass(frozen=True)
class BatcherConfig:
    """When a batch goes: `window_us` after its first request came, or as soon as it is full.

    Full is `max_requests`, or about `max_tokens` of prompts. `max_waiting` bounds the queue. `deadline_ms` is for
    requests that name none; None means that no forecast is ever late.
    """

    window_us: float = 200.0
    max_requests: int = 128
    max_tokens: int = 8192
    max_waiting: int = 1024
    deadline_ms: float | None = None

    def __post_init__(self) -> None:
        if self.window_us < 0 or min(self.max_requests, self.max_tokens, self.max_waiting) < 1:
            raise ConfigError(f"{self}", "a window of at least 0 and limits of at least 1")
        if self.deadline_ms is not None and self.deadline_ms <= 0:
            raise ConfigError(f"a deadline of {self.deadline_ms} ms", "more than 0, or none")


@dataclass(frozen=True)
class Counts:
    """What became of the requests: submitted = served + late + failed + cancelled + those still inside."""

    submitted: int = 0
    refused: int = 0
    served: int = 0
    late: int = 0
    failed: int = 0
    cancelled: int = 0
    batches: int = 0


@dataclass(eq=False)
class _Waiting:
    request: Request
    future: Future[LengthForecast]
    came: float
    deadline: float
    tokens: int


class Batcher:
    """Collects requests for one `predict`, which only the batcher's thread calls. Every future is resolved once."""

    def __init__(
        self,
        predict: Callable[[list[Request]], Sequence[LengthForecast]],
        config: BatcherConfig | None = None,
        *,
        size: Callable[[Request], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or BatcherConfig()
        self._predict, self._clock = predict, clock
        self._size = size or (lambda request: len(request.prompt) // CHARS_PER_TOKEN + 1)
        self._waiting: deque[_Waiting] = deque()
        self._tokens = 0
        self._counts = Counts()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="mope-batcher", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, bundle: MoPE, config: BatcherConfig | None = None) -> Batcher:
        """A batcher of a bundle's forecasts; a prompt's size is what its encoder will read of it."""
        most = bundle.config.text.max_tokens
        return cls(bundle.predict, config, size=lambda r: min(len(r.prompt) // CHARS_PER_TOKEN + 1, most))

    def submit(self, request: Request, deadline_ms: float | None = None) -> Future[LengthForecast]:
        """A future of the forecast. It may fail with `LateForecast`, or with what the prediction raised.

        Raises `Overloaded` when the queue is full or closed. The future may be cancelled until its batch starts.
        """
        now, limit = self._clock(), self.config.deadline_ms if deadline_ms is None else deadline_ms
        deadline = float("inf") if limit is None else now + limit / 1e3
        item = _Waiting(request, Future(), now, deadline, self._size(request))
        with self._changed:
            if self._closed or len(self._waiting) >= self.config.max_waiting:
                self._count(refused=1)
                raise Overloaded(
                    "the batcher is closed" if self._closed else "too many forecasts are waiting"
                )
            self._waiting.append(item)
            self._tokens += item.tokens
            self._count(submitted=1)
            # The thread sleeps for a first request, then for a full batch; others need not wake it.
            if len(self._waiting) == 1 or self._is_full():
                self._changed.notify()
        return item.future

    def forecast(self, request: Request, deadline_ms: float | None = None) -> LengthForecast:
        """The forecast, waited for until the deadline; raises as `submit` and its future do."""
        future = self.submit(request, deadline_ms)
        limit = self.config.deadline_ms if deadline_ms is None else deadline_ms
        try:
            return future.result(None if limit is None else limit / 1e3)
        except (TimeoutError, WaitedTooLong):
            future.cancel()
            raise LateForecast(f"no forecast within {limit} ms") from None

    async def aforecast(self, request: Request, deadline_ms: float | None = None) -> LengthForecast:
        """`forecast` for coroutines."""
        limit = self.config.deadline_ms if deadline_ms is None else deadline_ms
        future = asyncio.wrap_future(self.submit(request, deadline_ms))
        try:
            return await asyncio.wait_for(future, None if limit is None else limit / 1e3)
        except (TimeoutError, asyncio.TimeoutError):
            raise LateForecast(f"no forecast within {limit} ms") from None

    @property
    def counts(self) -> Counts:
        """What became of the requests so far."""
        with self._changed:
            return self._counts

    def close(self, *, drain: bool = True) -> None:
        """Refuse new requests, then serve those that wait (or fail them with `Overloaded`), and end the thread."""
        with self._changed:
            self._closed = True
            if not drain:
                self._abandon("the batcher is closed")
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close(drain=error[0] is None)

    def _work(self) -> None:
        """The thread: one batch after another, until closed and empty."""
        while batch := self._next():
            self._serve(batch)

    def _next(self) -> list[_Waiting]:
        """Wait for a first request, then for the window or a full batch; empty when closed and nothing is left."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while self._waiting and not self._closed and not self._is_full():
                rest = self._waiting[0].came + self.config.window_us / 1e6 - self._clock()
                if rest <= 0:
                    break
                self._changed.wait(rest)
            batch: list[_Waiting] = []
            tokens = 0
            while self._waiting and len(batch) < self.config.max_requests:
                tokens += self._waiting[0].tokens
                if batch and tokens > self.config.max_tokens:
                    break
                batch.append(self._waiting.popleft())
                self._tokens -= batch[-1].tokens
            return batch

    def _is_full(self) -> bool:
        return len(self._waiting) >= self.config.max_requests or self._tokens >= self.config.max_tokens

    def _serve(self, batch: list[_Waiting]) -> None:
        """Drop what was cancelled or is late already, and answer the rest."""
        wanted = [item for item in batch if item.future.set_running_or_notify_cancel()]
        now = self._clock()
        alive = [item for item in wanted if item.deadline >= now]
        with self._changed:
            self._count(cancelled=len(batch) - len(wanted), batches=1)
        for item in wanted:
            if item.deadline < now:
                self._late(item)
        if alive:
            self._answer(alive)

    def _answer(self, batch: list[_Waiting]) -> None:
        """All at once; where that fails, one by one, so that only a culprit pays for what it sent."""
        try:
            found = self._predict([item.request for item in batch])
            if len(found) != len(batch):
                raise ValueError(f"{len(found)} forecasts for {len(batch)} requests")
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to who asked
            if len(batch) > 1 and isinstance(error, Exception):
                for item in batch:
                    self._answer([item])
                return
            for item in batch:
                self._fail(item, error)
            if not isinstance(error, Exception):  # meant to end the thread, which it does
                with self._changed:
                    self._closed = True
                    self._abandon(f"the batcher ended ({type(error).__name__})")
            return
        now = self._clock()
        for item, forecast in zip(batch, found, strict=True):
            if item.deadline < now:
                self._late(item)
            else:
                with self._changed:
                    self._count(served=1)
                item.future.set_result(forecast)

    def _fail(self, item: _Waiting, error: BaseException) -> None:
        with self._changed:
            self._count(failed=1)
        item.future.set_exception(error)

    def _late(self, item: _Waiting) -> None:
        with self._changed:
            self._count(late=1)
        item.future.set_exception(
            LateForecast(f"the forecast came {self._clock() - item.deadline:.3g} s late")
        )

    def _abandon(self, reason: str) -> None:
        """Fail everything that waits; the lock is held."""
        while self._waiting:
            item = self._waiting.popleft()
            if item.future.set_running_or_notify_cancel():
                self._count(failed=1)
                item.future.set_exception(Overloaded(reason))
            else:
                self._count(cancelled=1)
        self._tokens = 0

    def _count(self, **more: int) -> None:
        """Add to the counts; the lock is held."""
        now = self._counts
        self._counts = replace(now, **{name: getattr(now, name) + n for name, n in more.items()})
