"""Orca's and Sarathi's loop: prompts are read beside decodes, whole or in chunks within a token budget of a step."""

from __future__ import annotations

from mope.equinox import step_budget
from mope.sim.costs import Chunk, Costs
from mope.sim.engine import Simulation
from mope.sim.inside import least_need
from mope.sim.machine import NO_LIMIT, Machine
from mope.sim.prefixes import Prefixes
from mope.sim.sequence import Sequence
from mope.sim.server import ServerConfig, oversize
from mope.types import Capacity

LEAST_CHUNK = 16  # prompt tokens that a step reads at least, whatever step time is wished for


class Mixed(Machine):
    """`reading` are the admitted requests whose prompts are not read yet, the oldest first."""

    def __init__(self, config: ServerConfig, sim: Simulation, costs: Costs, stepwise: bool = False) -> None:
        super().__init__(sim, costs, config.pool(costs.profile), config.block, stepwise)
        self.config = config
        self.by_prompt = config.admission == "prompt"
        self.reading: list[Sequence] = []
        self.unread = 0  # prompt tokens of them
        self.prefixes = Prefixes(config.prefix_tokens)
        self._chunks: list[Chunk] = []
        self._most = config.step_tokens if config.loop == "chunked" else config.prefill_tokens or NO_LIMIT
        self._seats = config.max_seqs
        self._reserved = 0  # KV tokens kept for all admitted requests
        self._ask = True  # whether an admission may have become possible
        self._restless = False  # whether only the order of turns keeps somebody from being admitted

    def too_large(self, seq: Sequence) -> str:
        """See `Loop.too_large`."""
        return oversize(self.config, self.batch.blocks.tokens, seq)

    def decide(self, now: float) -> None:
        """Decodes first; then what fits is admitted, and prompts are read with what the budget leaves."""
        if self._chunks:
            self._end_reading(now)
        batch = self.batch
        roomy = self.stretch is not None and batch.step <= self.roomy
        preempted = not roomy and bool(batch.running) and self.make_room(now)
        budget = self._most
        if self.config.tpot_s is not None and (self.reading or self.sim.queued):
            budget = self._budget(self.config.tpot_s)
        if self.sim.queued and not preempted and (self._ask or self._restless or self.stepwise):
            self._admit(now, budget)
        if self.reading:
            self._read(now, budget)
        elif batch.running:
            self.decode(now, 1 if self._restless or (self._ask and self.sim.queued) else NO_LIMIT)

    def queued(self, seq: Sequence, now: float, first: bool) -> None:
        """Only a new head can change what an engine does that found nobody fitting."""
        if not self.due or self.stepwise or (first and self._slots > 0 and self._may_fit(seq)):
            self._ask = True
            self.cut(now)

    def _may_fit(self, seq: Sequence) -> bool:
        """False where it certainly does not; it is only looked at closely where memory is short."""
        free = self._free
        if self.by_prompt or 8 * free > self.batch.blocks.tokens:
            return True
        return self.sim.scheduler.reserved_tokens(seq.id) <= free

    @property
    def _slots(self) -> int:
        return self._seats - len(self.batch.running) - len(self.reading)

    @property
    def _free(self) -> int:
        """KV tokens not kept for anybody. Rounding to blocks may cost each one less than a block."""
        blocks = self.batch.blocks
        if self.by_prompt:
            return (blocks.total - blocks.at(self.batch.step)) * blocks.size
        return blocks.tokens - self._reserved - (blocks.size - 1 if self._reserved else 0)

    def _admit(self, now: float, budget: int) -> None:
        sim = self.sim
        self._ask = self._restless = False
        if self.batch.speaks or self.stepwise:
            self.tell(now, self.batch.step)
        while sim.queued:
            if self.unread >= budget - len(self.batch.running):
                self._ask = True
                return
            slots = self._slots
            seq = self._next_by_prompt(slots, now) if self.by_prompt else self._next(slots, now)
            if seq is None:
                self._restless = slots > 0 and self._order_matters()
                return
            self._start(seq)

    def _next(self, slots: int, now: float) -> Sequence | None:
        """Admit who is next and fits what is not reserved."""
        sim = self.sim
        request = sim.scheduler.next(Capacity(self._free, slots), now)
        return None if request is None else sim.admitted(request.id, now)

    def _next_by_prompt(self, slots: int, now: float) -> Sequence | None:
        """Admit who is next where its prompt fits."""
        sim = self.sim
        request = sim.scheduler.peek(Capacity(NO_LIMIT, slots), now)
        if request is None or not self._has_room(sim.open[request.id]):
            return None
        return sim.admit(request.id, now)

    def _has_room(self, seq: Sequence) -> bool:
        blocks = self.batch.blocks
        alone = not self.batch.running and not self.reading
        spare = 0 if alone else self.config.watermark * blocks.tokens
        return blocks.of(seq.to_read + 1) * blocks.size + spare <= self._free

    def _order_matters(self) -> bool:
        """Whether somebody would fit if the order of turns were another, and progress may change it."""
        speaks = self.batch.speaks or (self.reading and not self.sim.deaf)
        if not speaks:
            return False
        return self.by_prompt or least_need(self.sim.scheduler) <= self._free

    def _start(self, seq: Sequence) -> None:
        cached = self.prefixes.use(seq.blocks) if self.prefixes.most else 0
        to_read = seq.to_read
        seq.read = min(cached, to_read - 1)
        self.reading.append(seq)
        self.unread += to_read - seq.read
        self.batch.blocks.fixed += self.batch.blocks.of(to_read + 1)
        if not self.by_prompt:
            seq.reserve = self.sim.scheduler.reserved_tokens(seq.id)
            self._reserved += seq.reserve + self.config.block - 1

    def _read(self, now: float, budget: int) -> None:
        """Begin a step that reads as much of the prompts as the budget leaves, in order; at least one token."""
        batch, chunks = self.batch, self._chunks
        running = len(batch.running)
        left = max(budget - running, 1)
        for seq in self.reading:
            unread = seq.to_read - seq.read
            tokens = min(left, unread)
            chunks.append(Chunk(tokens, seq.read, tokens == unread))
            seq.read += tokens
            self.unread -= tokens
            left -= tokens
            if left <= 0:
                break
        self.stretch = None
        seconds = self.costs.mixed(chunks, running, batch.context)
        self.begin(now + seconds, now, batch.step + 1)

    def _budget(self, tpot_s: float) -> int:
        """The most tokens for which the next step takes at most `tpot_s`."""
        count, context = len(self.batch), self.batch.context
        read = self.reading[0].read if self.reading else 0
        return step_budget(
            lambda tokens: self.costs.mixed([Chunk(max(tokens - count, 1), read)], count, context),
            tpot_s,
            least=min(count + LEAST_CHUNK, self._most),
            most=min(self._most, 1 << 20),
        )

    def _end_reading(self, now: float) -> None:
        """The prompts that were read to their end have their first token, or their next after a preemption."""
        blocks = self.batch.blocks
        for chunk in self._chunks:
            if chunk.last:
                seq = self.reading.pop(0)
                blocks.fixed -= blocks.of(seq.to_read + 1)
                self.join(seq, now)
        self._chunks = []

    def released(self, seq: Sequence) -> None:
        """Memory came free: somebody may fit."""
        self._ask = True
        if not self.by_prompt:
            self._reserved -= seq.reserve + self.config.block - 1

    def grew(self, tokens: int) -> None:
        """A reservation was outrun."""
        self._reserved += tokens
