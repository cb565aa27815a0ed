"""Nothing of ours raises into an engine: what goes wrong is counted and logged, and a plain answer given."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class Fails(Protocol):
    """What keeps count of its failures."""

    def failed(self, call: str, error: Exception) -> None:
        """`call` raised `error`; the engine goes on."""


S = TypeVar("S", bound=Fails)
P = ParamSpec("P")
R = TypeVar("R")
Method = Callable[Concatenate[S, P], R]


def guarded(otherwise: Callable[..., R]) -> Callable[[Method[S, P, R]], Method[S, P, R]]:
    """A method that answers `otherwise` of its arguments where it raises."""

    def wrap(call: Method[S, P, R]) -> Method[S, P, R]:
        name = call.__name__

        @wraps(call)
        def safe(self: S, /, *args: P.args, **named: P.kwargs) -> R:
            try:
                return call(self, *args, **named)
            except Exception as error:  # noqa: BLE001 - the engine goes on whatever happens here
                self.failed(name, error)
                return otherwise(*args, **named)

        return safe

    return wrap


def nothing(*_: object, **__: object) -> Any:
    """None, whatever the arguments."""
    return None
