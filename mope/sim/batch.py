"""The running batch: who decodes, how much context that is, and at which step something happens to whom."""

from __future__ import annotations

from heapq import heappop, heappush

from mope.sim.memory import Blocks
from mope.sim.sequence import Sequence

FAR = 1 << 60


class Batch:
    """Sequences that each make a token a step. `step` counts steps; all changes happen between two of them."""

    def __init__(self, blocks: int, size: int) -> None:
        self.step = 0
        self.running: dict[int, Sequence] = {}  # by number, the last admitted last
        self.blocks = Blocks(blocks, size)
        self.loud: dict[int, Sequence] = {}  # whose progress moves a counter
        self.offset = 0  # tokens held less the step, over all sequences
        self.alarms: list[tuple[int, int, Sequence]] = []  # a heap of (step, number, who)
        self._quiet: list[tuple[int, int, Sequence, int]] = []

    def __len__(self) -> int:
        return len(self.running)

    @property
    def context(self) -> int:
        """Tokens of context that the next step reads, over all sequences."""
        return self.offset + len(self.running) * self.step

    def made(self, seq: Sequence, step: int) -> int:
        """Output tokens a running sequence has at `step`."""
        return seq.made + step - seq.step

    def join(self, seq: Sequence, limit: int, quiet: float) -> None:
        """A sequence whose prompt was read starts to decode.

        It rings when it has `limit` tokens in all, or is done; its progress matters beyond `quiet` output tokens.
        """
        seq.step = self.step
        held = seq.prompt + seq.made
        self.running[seq.number] = seq
        self.offset += held - self.step
        self.blocks.add(held, self.step)
        self.ring(seq, limit)
        if quiet < seq.made:
            self.loud[seq.number] = seq
        elif quiet + 1 < seq.output:
            loud = self.step + int(quiet) - seq.made + 1
            heappush(self._quiet, (loud, seq.number, seq, seq.preempted))

    def ring(self, seq: Sequence, limit: int) -> None:
        """Set the alarm of a running sequence: at `limit` tokens in all, or when it is done."""
        done = seq.step + seq.output - seq.made
        full = seq.step + limit - seq.prompt - seq.made
        seq.entry = (min(done, max(full, self.step + 1)), seq.number, seq)
        heappush(self.alarms, seq.entry)

    def leave(self, seq: Sequence) -> None:
        """Take a sequence out, with what it has made so far."""
        self.blocks.remove(seq.prompt + seq.made, seq.step)
        self.offset -= seq.prompt + seq.made - seq.step
        seq.made = self.made(seq, self.step)
        seq.entry = None
        del self.running[seq.number]
        self.loud.pop(seq.number, None)

    def alarm(self) -> int:
        """The next step at which a sequence rings."""
        alarms = self.alarms
        while alarms and alarms[0][2].entry is not alarms[0]:
            heappop(alarms)
        return alarms[0][0] if alarms else FAR

    def ringing(self) -> list[Sequence]:
        """The sequences whose alarm is due, in the order of their numbers."""
        alarms, found = self.alarms, []
        while alarms and alarms[0][0] <= self.step:
            entry = heappop(alarms)
            if entry[2].entry is entry:
                found.append(entry[2])
        return found

    def speaking(self, step: int) -> list[Sequence]:
        """The sequences whose progress up to `step` matters."""
        quiet = self._quiet
        while quiet and quiet[0][0] <= step:
            _, number, seq, preempted = heappop(quiet)
            if self.running.get(number) is seq and seq.preempted == preempted:
                self.loud[number] = seq
        return list(self.loud.values())

    @property
    def speaks(self) -> bool:
        """Whether the progress of a sequence matters, or may later."""
        return bool(self.loud or self._quiet)
