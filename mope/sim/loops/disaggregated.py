"""DistServe's loop: one engine reads prompts and makes first tokens, another decodes; the KV cache moves over.

Room for the whole request is kept in the decode engine from admission on, so that what was read can always land. An
idle prefill engine asks who is next when a request comes or memory comes free.
"""

from __future__ import annotations

from mope.sim.costs import Chunk, Costs
from mope.sim.engine import Simulation
from mope.sim.events import STEP, TRANSFER
from mope.sim.machine import Machine
from mope.sim.sequence import Sequence
from mope.sim.server import ServerConfig, oversize
from mope.types import Capacity


class Decoder(Machine):
    """The decode engine. `landed` are the sequences whose KV cache has come, and which join at the next step."""

    def __init__(self, owner: Disaggregated, pool: int, block: int, stepwise: bool) -> None:
        super().__init__(owner.sim, owner.costs, pool, block, stepwise)
        self.owner = owner
        self.landed: list[Sequence] = []

    def land(self, seq: Sequence, now: float) -> None:
        """The KV cache of `seq` is here."""
        self.landed.append(seq)
        self.cut(now)

    def decide(self, now: float) -> None:
        """Take in what has landed, and decode."""
        for seq in self.landed:
            self.batch.join(seq, seq.reserve, self.sim.quiet(seq))
            self.stretch = None
        self.landed = []
        if self.batch.running:
            self.make_room(now)
        if self.batch.running:
            self.decode(now)
        if self.owner.freed:
            self.owner.ask(now)

    def released(self, seq: Sequence) -> None:
        """Memory came free."""
        self.owner.reserved -= seq.reserve + self.batch.blocks.size - 1
        self.owner.freed = True

    def grew(self, tokens: int) -> None:
        """A reservation was outrun."""
        self.owner.reserved += tokens


class Landing:
    """A transfer that ends."""

    def __init__(self, owner: Disaggregated, seq: Sequence, tokens: int) -> None:
        self.owner, self.seq, self.tokens = owner, seq, tokens

    def happen(self, now: float, number: int) -> None:
        """See `mope.sim.events.Target`."""
        self.owner.read_tokens -= self.tokens
        self.owner.freed = True
        self.owner.decoder.land(self.seq, now)
        self.owner.ask(now)


class Disaggregated:
    """The prefill engine, and with it the loop. `reading` are the prompts of the step that goes on."""

    def __init__(self, config: ServerConfig, sim: Simulation, costs: Costs, stepwise: bool = False) -> None:
        self.config, self.sim, self.costs = config, sim, costs
        self.decoder = Decoder(self, config.pool(costs.profile), config.block, stepwise)
        self.pool = self.decoder.batch.blocks.tokens
        self.most = config.prefill_tokens or config.step_tokens
        self.reading: list[Sequence] = []
        self.reserved = 0  # KV tokens kept in the decode engine
        self.read_tokens = 0  # KV tokens held by the prefill engine
        self.freed = False
        self.active = False

    @property
    def busy_s(self) -> float:
        """Seconds in which the decode engine had work."""
        return self.decoder.busy_s

    def too_large(self, seq: Sequence) -> str:
        """See `Loop.too_large`."""
        return oversize(self.config, self.pool, seq)

    def before(self, now: float, next_s: float) -> None:
        """See `Loop.before`; two engines share the scheduler's clock, so progress is never put off."""
        self.decoder.before(now, now)

    def queued(self, seq: Sequence, now: float, first: bool) -> None:
        """See `Loop.queued`."""
        self.ask(now)

    def ask(self, now: float) -> None:
        """Admit what fits into one prefill step, where none goes on, and begin it."""
        sim, block = self.sim, self.config.block - 1
        self.freed = False
        if self.active or not sim.queued:
            return
        self.before(now, now)
        left = self.most
        while sim.queued and left > 0:
            free = self.pool - self.reserved - (block if self.reserved else 0)
            slots = self.config.max_seqs - len(sim.open) + sim.queued
            request = sim.scheduler.peek(Capacity(free, slots), now)
            if request is None or not self._has_room(sim.open[request.id], left):
                break
            seq = sim.admit(request.id, now)
            seq.reserve = sim.scheduler.reserved_tokens(seq.id)
            self.reserved += seq.reserve + block
            self.read_tokens += seq.to_read
            left -= seq.to_read
            self.reading.append(seq)
        if self.reading:
            self.active = True
            seconds = self.costs.mixed([Chunk(one.to_read) for one in self.reading], 0, 0)
            sim.events.push(now + seconds, STEP, self)

    def _has_room(self, seq: Sequence, left: int) -> bool:
        """Whether the prefill engine holds one more prompt and this step reads it; any size where it is alone."""
        fits = self.read_tokens + seq.to_read <= self.pool
        return fits and (not self.reading or seq.to_read <= left)

    def happen(self, now: float, number: int) -> None:
        """Prompts were read: each has a token, and its KV cache begins to move."""
        self.active = False
        for seq in self.reading:
            tokens = seq.to_read
            seq.made += 1
            if seq.first_s != seq.first_s:
                seq.first_s = now
            if seq.made >= seq.output:
                self.read_tokens -= tokens
                self.decoder.released(seq)
                self.sim.finish(seq, now)
            else:
                self.sim.events.push(now + self.costs.transfer(tokens), TRANSFER, Landing(self, seq, tokens))
        self.reading = []
        self.ask(now)
