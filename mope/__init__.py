"""Predicts how long and how costly an LLM's answer will be, before it is generated."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mope.adapt.online import OnlineCalibrator, OnlineConfig
    from mope.errors import (
        BadInput,
        BundleError,
        ConfigError,
        DataError,
        HubError,
        LateForecast,
        MissingExtra,
        MopeError,
        Overloaded,
        PromptError,
        TrainingError,
    )
    from mope.forecast import Forecaster
    from mope.mapper.metrics import Load
    from mope.predictor.bundle import MoPE
    from mope.types import Capacity, Forecast, History, LengthForecast, Message, Request, Span, Usage

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "BundleError",
    "Capacity",
    "ConfigError",
    "DataError",
    "Forecast",
    "Forecaster",
    "History",
    "HubError",
    "LateForecast",
    "LengthForecast",
    "Load",
    "Message",
    "MissingExtra",
    "MoPE",
    "MopeError",
    "OnlineCalibrator",
    "OnlineConfig",
    "Overloaded",
    "PromptError",
    "Request",
    "Span",
    "TrainingError",
    "Usage",
    "__version__",
]

_HOMES = {
    **dict.fromkeys(
        ("Capacity", "Forecast", "History", "LengthForecast", "Message", "Request", "Span", "Usage"),
        "mope.types",
    ),
    "Forecaster": "mope.forecast",
    "Load": "mope.mapper.metrics",
    "MoPE": "mope.predictor.bundle",
    "OnlineCalibrator": "mope.adapt.online",
    "OnlineConfig": "mope.adapt.online",
}


def __getattr__(name: str) -> Any:
    """Names are loaded on first use, so that `import mope` stays instant."""
    if name not in __all__:
        raise AttributeError(f"module 'mope' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "mope.errors")), name)


def __dir__() -> list[str]:
    return __all__
