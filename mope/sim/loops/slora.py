"""S-LoRA's loop, as VTC's authors ran it: prefill alone, up to ten decode steps between two admissions.

A request is admitted where the peak of all KV tokens fits the pool, from what each asks for (not from a forecast),
and the first that does not fit ends the admission. From `router/manager.py` and `router/req_queue.py` of
VTC-artifact, commit 192c2e2014.
"""

from __future__ import annotations

from mope.sim.costs import Chunk, Costs
from mope.sim.engine import Simulation
from mope.sim.inside import heads
from mope.sim.machine import NO_LIMIT, Machine
from mope.sim.peaks import Peaks
from mope.sim.sequence import Sequence
from mope.sim.server import ServerConfig, oversize
from mope.types import Capacity

LEAST_PREFILL = 3072
MOST_SHAPES = 8  # sizes of waiting heads looked at one by one
AHEAD = 512  # steps looked ahead
NO_CAPACITY = Capacity(float("inf"), 1)


class Slora(Machine):
    """`new` are the admitted requests whose prompts are being read."""

    reserves = False

    def __init__(self, config: ServerConfig, sim: Simulation, costs: Costs, stepwise: bool = False) -> None:
        self.pool = config.pool(costs.profile)
        super().__init__(sim, costs, self.pool, 1, stepwise)
        self.config = config
        self.most = config.prefill_tokens or max(self.pool // 6, LEAST_PREFILL)
        self.new: list[Sequence] = []
        self.since = 0  # the step of the last prefill
        self._peaks: Peaks | None = None
        self._clients: set[str] = set()  # of the batch that `_peaks` is of

    def too_large(self, seq: Sequence) -> str:
        """See `Loop.too_large`; a lone request needs room for its adapter, and a prompt has to fit one prefill."""
        if seq.prompt > self.most:
            return f"prompt above the {self.most} tokens of a prefill"
        need = seq.prompt + max(seq.output, seq.declared or 0)
        if need >= self.pool - self.config.adapter_tokens:
            return f"larger than the KV cache of {self.pool} tokens"
        return oversize(self.config, self.pool, seq)

    def decide(self, now: float) -> None:
        """A prefill where somebody may be asked for and fits, else decode steps."""
        batch = self.batch
        if self.new:
            for seq in self.new:
                self.join(seq, now)
            self.new = []
            self.since = batch.step
        asked = self.sim.queued > 0 and (
            not batch.running or batch.step >= self.since + self.config.wait_steps
        )
        if asked and self._admit(now):
            self.stretch = None
            seconds = self.costs.mixed([Chunk(seq.prompt) for seq in self.new], 0, 0)
            self.begin(now + seconds, now, batch.step)
        elif batch.running:
            self.decode(now, self._patience(asked))

    def _patience(self, asked: bool) -> int:
        """Decode steps until somebody is worth asking for."""
        if self.stepwise or not self.sim.queued:
            return NO_LIMIT
        return self._first_fit() if asked else self.since + self.config.wait_steps - self.batch.step

    def queued(self, seq: Sequence, now: float, first: bool) -> None:
        """A new head may fit at the next step at which anybody is asked for."""
        if first or not self.due:
            self.cut(now, self.since + self.config.wait_steps)

    def _admit(self, now: float) -> bool:
        """Take in what fits, up to the first that does not."""
        sim, step, config = self.sim, self.batch.step, self.config
        self.tell(now, step)
        peaks, clients, tokens = self._held(), self._clients, 0
        while sim.queued and len(peaks) < config.max_seqs:
            request = sim.scheduler.peek(NO_CAPACITY, now)
            if request is None:
                break
            seq = sim.open[request.id]
            left, used = self._wish(seq) - 1, seq.prompt + 1
            room = self.pool - config.adapter_tokens * len(clients | {seq.client})
            if tokens + seq.prompt > self.most or peaks.beside(step, used, left) >= room:
                break
            peaks.add(step + left, used - step)
            clients, tokens = clients | {seq.client}, tokens + seq.prompt
            self.new.append(sim.admit(seq.id, now))
        if self.new:
            self._peaks = None
        return bool(self.new)

    def released(self, seq: Sequence) -> None:
        """Somebody left the batch."""
        self._peaks = None

    def _wish(self, seq: Sequence) -> int:
        """Output tokens that a request asks for; without, what it will really make."""
        return seq.output if seq.declared is None else max(seq.declared, seq.output)

    def _held(self) -> Peaks:
        """What the batch holds, worked out again where it has changed."""
        if self._peaks is None:
            running = self.batch.running.values()
            self._clients = {seq.client for seq in running}
            self._peaks = Peaks(
                [
                    (self._wish(seq) - seq.made - 1 + seq.step, seq.prompt + seq.made - seq.step)
                    for seq in running
                ]
            )
        return self._peaks

    def _first_fit(self) -> int:
        """Steps until one of the waiting heads may fit, at least one; before, asking is in vain."""
        step = self.batch.step
        steps = min(self.batch.alarm() - step, AHEAD)
        peaks = self._held()
        if len(peaks) >= self.config.max_seqs:
            return steps
        room = self.pool - self.config.adapter_tokens * len(self._clients)
        sizes = ((prompt + 1, wish - 1) for prompt, wish in self._shapes())
        return min((peaks.first(step, steps, used, left, room) for used, left in sizes), default=steps)

    def _shapes(self) -> list[tuple[int, int]]:
        """(prompt, output asked for) of the waiting heads; where they are many, the least of each."""
        waiting = (self.sim.open[request_id] for request_id in heads(self.sim.scheduler))
        found = {(seq.prompt, self._wish(seq)) for seq in waiting}
        if len(found) <= MOST_SHAPES:
            return list(found)
        return [(min(one[0] for one in found), min(one[1] for one in found))]
