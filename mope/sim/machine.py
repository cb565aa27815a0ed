"""One engine's running batch through time: stretches of decode steps, alarms, finishes, preemption by recompute.

A loop (`mope.sim.loops`) fills in `decide`: what happens between two steps. With `stepwise` every step is an
event and everybody's progress is told at each: slow, and the same log (tested).
"""

from __future__ import annotations

from mope.sim.batch import FAR, Batch
from mope.sim.costs import Costs
from mope.sim.engine import Simulation
from mope.sim.events import STEP
from mope.sim.sequence import Sequence
from mope.sim.stretch import Stretch

NO_LIMIT = FAR


class Machine:
    """An engine that decodes. It is idle, in a stretch of decode steps, or in one step of another kind."""

    reserves = True  # whether a request that outruns its reservation is an event

    def __init__(self, sim: Simulation, costs: Costs, pool: int, block: int, stepwise: bool = False) -> None:
        self.sim, self.costs, self.stepwise = sim, costs, stepwise
        self.batch = Batch(pool // block, block)
        self.stretch: Stretch | None = None
        self.due = 0  # number of the event that ends what goes on; 0: idle
        self.target = 0  # the batch step at which it ends
        self.roomy = 0  # a step up to which memory certainly suffices for the batch of the stretch
        self.busy_s = 0.0
        self.began_s = self.ends_s = 0.0

    def decide(self, now: float) -> None:
        """Between two steps: admit, then begin a step, a stretch or nothing."""
        raise NotImplementedError

    def happen(self, now: float, number: int) -> None:
        """What went on has ended, unless it was cut short meanwhile."""
        if number != self.due:
            return
        self.due = 0
        self.busy_s += now - self.began_s
        batch = self.batch
        batch.step = target = self.target
        if batch.alarms and batch.alarms[0][0] <= target:
            for seq in batch.ringing():
                self.ring(seq, now)
        if self.stepwise:
            self.tell(now, batch.step)
        self.decide(now)

    def ring(self, seq: Sequence, now: float) -> None:
        """A running sequence is done, or has outrun what was reserved for it."""
        batch = self.batch
        if batch.made(seq, batch.step) >= seq.output:
            batch.leave(seq)
            self.stretch = None
            self.released(seq)
            self.sim.finish(seq, now)
            return
        self.sim.tell(seq, batch.made(seq, batch.step), now)
        before = seq.reserve
        seq.reserve = self.sim.scheduler.reserved_tokens(seq.id)
        self.grew(seq.reserve - before)
        batch.ring(seq, seq.reserve)

    def released(self, seq: Sequence) -> None:
        """A sequence has left the engine's memory."""

    def grew(self, tokens: int) -> None:
        """What is reserved has grown."""

    def join(self, seq: Sequence, now: float) -> None:
        """The prompt of `seq` was read at `now`, which makes a token: it decodes from here on, or is done."""
        seq.made += 1
        if seq.first_s != seq.first_s:
            seq.first_s = now
        self.stretch = None
        if seq.made >= seq.output:
            self.released(seq)
            self.sim.finish(seq, now)
        else:
            self.batch.join(seq, seq.reserve if self.reserves else NO_LIMIT, self.sim.quiet(seq))

    def decode(self, now: float, most: int = NO_LIMIT) -> None:
        """Begin or go on with a stretch, of up to `most` steps, to the next thing that happens."""
        batch = self.batch
        stretch = self.stretch
        if stretch is None or batch.step >= stretch.until:
            context = batch.context
            stretch = self.stretch = self.costs.stretch(now, batch.step, len(batch.running), context)
            self.roomy = batch.step + batch.blocks.surely(context)
        until = 1 if self.stepwise else most
        target = min(batch.alarm(), stretch.until, batch.step + until)
        if target > self.roomy and batch.blocks.total < batch.blocks.at(target - 1):
            target = batch.blocks.last(batch.step) + 1
        self.begin(stretch.at(target), now, target)

    def begin(self, end_s: float, now: float, target: int) -> None:
        """Something goes on from `now` to `end_s`, when the batch will have come to step `target`."""
        self.target, self.began_s, self.ends_s = target, now, end_s
        self.due = self.sim.events.push(end_s, STEP, self)

    def cut(self, now: float, least: int = 0) -> None:
        """End a stretch at the first step that ends at `now` or later, from step `least` on; wake an idle engine."""
        if not self.due:
            self.begin(now, now, self.batch.step)
        elif self.stretch is not None:
            target = max(self.stretch.reached(now), least)
            if target < self.target:
                self.target, self.ends_s = target, self.stretch.at(target)
                self.due = self.sim.events.push(self.ends_s, STEP, self)

    def before(self, now: float, next_s: float) -> None:
        """See `Loop.before`: tell what the steps that ended before `now` have made.

        Another request may come before the next step ends, and find the scheduler's clock at `now` already: then
        progress is told now, under the time of its step, rather than later under another.
        """
        stretch, batch = self.stretch, self.batch
        if not self.due or not batch.speaks:
            return
        if stretch is None:
            if next_s <= self.ends_s:
                self.tell(self.began_s, batch.step)
            return
        step = stretch.reached(now) - 1
        if next_s <= stretch.at(step + 1):
            self.tell(stretch.at(step), step)

    def tell(self, now: float, step: int) -> None:
        """Tell the progress at `step` of every sequence whose progress matters."""
        batch, tell = self.batch, self.sim.tell
        for seq in list(batch.running.values()) if self.stepwise else batch.speaking(step):
            tell(seq, batch.made(seq, step), now)

    def make_room(self, now: float) -> bool:
        """Preempt the latest admitted until all have room for the token they go on from; says whether it had to."""
        batch, blocks = self.batch, self.batch.blocks
        at_most = batch.context // blocks.size + blocks.count + blocks.fixed
        if at_most <= blocks.total or blocks.at(batch.step) <= blocks.total:
            return False
        self.tell(now, batch.step)
        while blocks.at(batch.step) > blocks.total:
            seq = next(reversed(batch.running.values()))
            batch.leave(seq)
            self.stretch = None
            self.released(seq)
            self.sim.requeue(seq, now)
        return True
