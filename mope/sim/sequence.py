"""A request inside the made-up server, with the truth that its scheduler must not see."""

from __future__ import annotations

from typing import Any, NamedTuple

NEVER = float("nan")


class Arrival(NamedTuple):
    """One request of a workload. `declared` is the most output tokens it asks for, where it says so.

    `blocks` name the blocks its prompt begins with (see `mope.sim.prefixes`): the same name, the same tokens.
    """

    arrival_s: float
    client: str
    prompt_tokens: int
    output_tokens: int
    declared: int | None = None
    blocks: tuple[int, ...] = ()


class Sequence:
    """A request from arrival to its last token. Times in seconds.

    `made` output tokens as of batch step `step`; `told` of them the scheduler knows of. `reserve` KV tokens are
    kept for it, `read` tokens of its prompt are in the cache. `entry` is its place among the alarms of its batch.
    """

    __slots__ = (
        "admitted_s", "arrival_s", "blocks", "client", "declared", "entry", "first_s", "id", "made", "number",
        "output", "preempted", "prompt", "read", "reserve", "step", "told",
    )  # fmt: skip

    def __init__(self, number: int, arrival: Arrival) -> None:
        self.number = number
        self.id = str(number)
        self.arrival_s, self.client, self.prompt, self.output, self.declared, self.blocks = arrival
        self.admitted_s = self.first_s = NEVER
        self.made = self.told = self.step = self.preempted = self.reserve = self.read = 0
        self.entry: Any = None

    @property
    def to_read(self) -> int:
        """Tokens to prefill: the prompt, and after a preemption the output so far."""
        return self.prompt + self.made
