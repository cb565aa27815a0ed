"""Whole forecasts of a file: length, then seconds, utilisation, KV blocks and money, as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from mope.bulk.answers import Answer, Columns, Lengths, length_columns
from mope.forecast import Forecaster
from mope.mapper.metrics import Load
from mope.mapper.prices import Price
from mope.mapper.profile import Profile
from mope.types import Request


@dataclass(frozen=True)
class Forecasts:
    """The columns of `Lengths`, then prompt_tokens and those of `Forecaster.columns`."""

    lengths: Lengths
    profile: Profile | None
    price: Price | None
    load: Load
    usd_per_gpu_hour: float | None = None

    @property
    def gpus(self) -> int:
        """As for lengths: the mapper needs none."""
        return self.lengths.gpus

    def settings(self) -> Mapping[str, object]:
        """Those of lengths, and what they are mapped by."""
        return {
            **self.lengths.settings(), "forecast": "whole", "load": asdict(self.load),
            "usd_per_gpu_hour": self.usd_per_gpu_hour,
            "hardware": self.profile.to_json() if self.profile else None,
            "price": {key: str(value) for key, value in asdict(self.price).items()} if self.price else None,
        }  # fmt: skip

    def open(self) -> Answer:
        """The bundle's lengths, mapped."""
        bundle = self.lengths.load()
        made = Forecaster(
            bundle, self.profile, self.price, load=self.load, usd_per_gpu_hour=self.usd_per_gpu_hour
        )

        def answer(requests: Sequence[Request]) -> Columns:
            found = bundle.predict(list(requests))
            return length_columns(found) | made.length_columns(requests, found)

        return answer
