"""How each engine reads the integer `priority`: which way round, and the flags without which it does not."""

from __future__ import annotations

from dataclasses import dataclass

from mope.errors import ConfigError
from mope.serving_adapters.registry import Adapter


@dataclass(frozen=True)
class Dialect:
    """`sign` 1: the lower the sooner. `flags` make the engine sort by priority and leave running requests alone.

    `untagged` says where a request without a priority lands.
    """

    name: str
    sign: int
    flags: tuple[str, ...]
    untagged: str


DIALECTS = {
    one.name: one
    for one in (
        Dialect("vllm", 1, ("--scheduling-policy", "priority"), "first: it counts as 0"),
        Dialect(
            "sglang",
            1,
            (
                "--enable-priority-scheduling",
                "--schedule-low-priority-values-first",
                "--disable-priority-preemption",
            ),
            "last",
        ),
        Dialect(
            "sglang-high-first",
            -1,
            ("--enable-priority-scheduling", "--disable-priority-preemption"),
            "last",
        ),
    )
}


def dialect(engine: Dialect | str) -> Dialect:
    """The dialect of a name, or the one given; raises `ConfigError` with the known names."""
    if isinstance(engine, Dialect):
        return engine
    if engine not in DIALECTS:
        raise ConfigError(f"engine {engine!r}", f"one of {', '.join(DIALECTS)}")
    return DIALECTS[engine]


ADAPTER = Adapter(
    name="tags",
    about="no plug-in: fair tags sent as the stock integer priority of vLLM or SGLang",
    use="mope serve --upstream URL --tags vllm",
)
