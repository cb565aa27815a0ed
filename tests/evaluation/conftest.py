"""A bundle whose every answer is known: forecasts are looked up in the prompt's number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from mope.data.records import Example, LengthData
from mope.data.split import Bounds
from mope.types import Request

LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class DoubleColumn:
    tokens: np.ndarray
    quantiles: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    probabilities: np.ndarray | None = None


@dataclass(frozen=True)
class DoubleConfig:
    bounds: Bounds
    quantiles: tuple[float, ...] = LEVELS
    routing: str = "soft"


@dataclass
class DoubleBundle:
    """`forecasts[name][prompt]` are the tokens each column says; MoPE columns add quantiles and buckets."""

    config: DoubleConfig
    forecasts: dict[str, dict[str, float]]
    asked: list[Any] = field(default_factory=list)

    def columns(
        self, requests: Sequence[Request], true_lengths: np.ndarray | None
    ) -> dict[str, DoubleColumn]:
        self.asked.append((len(requests), true_lengths))
        return {name: self._column(name, requests) for name in self.forecasts}

    def _column(self, name: str, requests: Sequence[Request]) -> DoubleColumn:
        tokens = np.array([self.forecasts[name][request.prompt] for request in requests], np.float32)
        if name in ("constant", "surface GBDT", "context GBDT"):
            return DoubleColumn(tokens)
        quantiles = np.stack([tokens * 0.5, tokens, tokens * 2], axis=1)
        said = np.eye(3, dtype=np.float32)[self.config.bounds.bucket(tokens)]
        routed = said if "routed" in name else None
        return DoubleColumn(tokens, quantiles, quantiles[:, 0], quantiles[:, 2], routed)


class Worlds:
    """Makes bundles and data."""

    def exact(
        self, forecasts: dict[str, Sequence[float]], lengths: Sequence[Sequence[int]], **given: Any
    ) -> tuple[DoubleBundle, LengthData]:
        """A world with one prompt per entry of `lengths`, each a conversation of its own unless told."""
        groups = given.get("groups") or [str(i) for i in range(len(lengths))]
        sources, models = given.get("sources"), given.get("models")
        examples = [
            Example(
                Request(str(i), model=models[i] if models else None),
                tuple(answers),
                groups[i],
                sources[i] if sources else "",
                given.get("cap"),
            )
            for i, answers in enumerate(lengths)
        ]
        config = DoubleConfig(Bounds(10, 100, 1000), routing=given.get("routing", "soft"))
        said = {name: {str(i): v for i, v in enumerate(values)} for name, values in forecasts.items()}
        return DoubleBundle(config, said), LengthData(examples)

    def noisy(self, prompts: int = 400, answers: int = 1, seed: int = 0) -> tuple[DoubleBundle, LengthData]:
        """A world like real ones: long tails, a good mixture, a worse proxy, a constant."""
        rng = np.random.default_rng(seed)
        medians = np.exp(rng.normal(4.5, 1.2, prompts))
        lengths = [np.exp(rng.normal(np.log(m), 0.4, answers)).astype(int).tolist() for m in medians]
        noise = {
            "MoPE (routed, hard)": 0.5,
            "MoPE (routed, soft)": 0.4,
            "MoPE (oracle router)": 0.2,
            "proxy": 0.6,
        }
        noise |= {"surface GBDT": 1.0, "context GBDT": 0.7}
        said = {name: (medians * np.exp(rng.normal(0, s, prompts))).tolist() for name, s in noise.items()}
        said["constant"] = [float(np.median(medians))] * prompts
        given: dict[str, Any] = {
            "groups": [f"chat {i // 2}" for i in range(prompts)],
            "sources": ["a" if i % 3 else "b" for i in range(prompts)],
        }
        return self.exact(said, lengths, **given)


@pytest.fixture
def worlds() -> Worlds:
    return Worlds()
