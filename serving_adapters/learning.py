"""A predictor's forecasts held to what the engine really answers: corrected as they come, taught by the ends."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from mope.adapt.online import OnlineCalibrator
from mope.errors import BadInput
from mope.types import Forecast, LengthForecast, Request

MOST_OPEN = 65_536  # forecasts kept until their request ends; beyond, the oldest teaches nothing


class Learner:
    """One engine's `OnlineCalibrator` and the forecasts of its open requests, as the predictor made them."""

    def __init__(self, online: OnlineCalibrator | None = None) -> None:
        self.online = online or OnlineCalibrator()
        self._open: OrderedDict[str, tuple[LengthForecast, Request]] = OrderedDict()

    def correct(self, request: Request, forecast: Forecast) -> Forecast:
        """The forecast as the engine's answers so far say it should be; as it is where it is out of order.

        What was worked out for the old length as a whole (latency, rate, KV, money) is left out; TTFT and TPOT stay.
        """
        raw = forecast.length
        try:
            length = self.online.correct(raw, request.model, request.client)
        except BadInput:
            return forecast
        self._open[request.id] = raw, request
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        if length is raw:
            return forecast
        return replace(
            forecast, length=length, latency_s=None, tokens_per_s=None, kv_blocks=None, kv_bytes=None,
            gpu_s=None, cost=None,
        )  # fmt: skip

    def finish(self, request_id: str, output_tokens: int, reason: str) -> None:
        """The answer is there; one that was cut, by `reason` or by `max_tokens`, counts as at least so long."""
        known = self._open.pop(request_id, None)
        if known is None:
            return
        raw, request = known
        capped = "length" in reason.lower() or output_tokens >= (request.max_tokens or float("inf"))
        self.online.observe(raw, output_tokens, request.model, request.client, capped)

    def forget(self, request_id: str) -> None:
        """It was given up: how long it would have become nobody knows."""
        self._open.pop(request_id, None)
