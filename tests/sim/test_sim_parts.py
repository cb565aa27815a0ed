"""The parts against their definitions: blocks, stretches, peaks, events, costs."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.mapper.profile import Profile
from mope.mapper.steps import Direct, Layered
from mope.sim.costs import Chunk, Costs
from mope.sim.events import ARRIVAL, STEP, TRANSFER, Events
from mope.sim.memory import Blocks
from mope.sim.peaks import Peaks
from mope.sim.stretch import Stretch


class Note:
    """Notes its name when it happens."""

    def __init__(self, notes: list[str], name: str) -> None:
        self.notes, self.name = notes, name

    def happen(self, now: float, number: int) -> None:
        self.notes.append(self.name)


def test_events_happen_by_time_then_priority_then_number() -> None:
    events, notes = Events(), list[str]()
    order = [(2.0, STEP, "e"), (1.0, STEP, "c"), (1.0, ARRIVAL, "a"), (1.0, TRANSFER, "b"), (1.0, STEP, "d")]
    for time, priority, name in order:
        events.push(time, priority, Note(notes, name))
    assert events.run(4)
    assert (notes, events.now) == (["a", "b", "c", "d"], 1.0)
    assert not events.run(9)
    assert notes[-1] == "e"
    with pytest.raises(AssertionError):
        events.push(1.5, STEP, Note(notes, "past"))


@given(
    size=st.integers(1, 17),
    held=st.lists(st.tuples(st.integers(1, 90), st.integers(0, 50)), max_size=8),
    step=st.integers(50, 120),
    total=st.integers(0, 60),
)
def test_blocks_are_those_of_each_sequence(
    size: int, held: list[tuple[int, int]], step: int, total: int
) -> None:
    def at(when: int) -> int:
        return sum(ceil((tokens + when - joined) / size) for tokens, joined in held)

    blocks = Blocks(total, size)
    for tokens, joined in held:
        blocks.add(tokens, joined)
    assert blocks.at(step) == at(step)
    if held:
        last = blocks.last(step)
        assert last >= step - 1
        assert last < step or at(last) <= total
        assert at(last + 1) > total
        sure = blocks.surely(sum(tokens + step - joined for tokens, joined in held))
        assert sure < 0 or at(step + sure) <= total
    for tokens, joined in held:
        blocks.remove(tokens, joined)
    assert blocks.at(step) == blocks.count == 0


@given(
    first=st.floats(1e-4, 10),
    growth=st.floats(0, 0.1),
    start=st.floats(0, 1e6),
    after=st.floats(0, 1e4),
)
def test_a_stretch_reaches_a_time_with_the_first_step_that_ends_then(
    first: float, growth: float, start: float, after: float
) -> None:
    stretch = Stretch(start, 7, first, growth, 1 << 40)
    time = start + after
    step = stretch.reached(time)
    assert step > 7
    assert stretch.at(step) >= time
    assert step == 8 or stretch.at(step - 1) < time


@given(first=st.floats(1e-3, 1), growth=st.floats(0, 1e-2), steps=st.integers(1, 60))
def test_a_stretch_is_the_sum_of_its_steps(first: float, growth: float, steps: int) -> None:
    total = sum(first + growth * i for i in range(steps))
    assert Stretch(2.0, 0, first, growth, 1 << 40).at(steps) == pytest.approx(2.0 + total, rel=1e-12)


def simulated_peak(held: list[tuple[int, int]]) -> int:
    """Of (tokens to come, tokens held), step by step."""
    return max(
        sum(used + step for left, used in held if left >= step)
        for step in range(1 + max(left for left, _ in held))
    )


HELD = st.tuples(st.integers(0, 20), st.integers(1, 30))  # (to come, held)


@given(held=st.lists(HELD, max_size=6), candidate=HELD, step=st.integers(0, 9))
def test_the_peak_is_that_of_stepping(
    held: list[tuple[int, int]], candidate: tuple[int, int], step: int
) -> None:
    peaks = Peaks([(left + step, used - step) for left, used in held])
    left, used = candidate
    assert peaks.beside(step, used, left) == simulated_peak([*held, candidate])
    peaks.add(left + step, used - step)
    assert peaks.beside(step, 0, 0) == simulated_peak([*held, candidate, (0, 0)])


@given(held=st.lists(HELD, min_size=1, max_size=6), candidate=HELD, room=st.integers(1, 200))
def test_the_first_step_with_room_is_that_of_asking_at_each(
    held: list[tuple[int, int]], candidate: tuple[int, int], room: int
) -> None:
    steps = min(left for left, _ in held) + 1
    peaks = Peaks([(left + 3, used - 3) for left, used in held])
    left, used = candidate
    asked = (ahead for ahead in range(1, steps + 1) if peaks.beside(3 + ahead, used, left) < room)
    assert peaks.first(3, steps, used, left, room) == next(asked, steps)


LAYERED = ["llama-2-7b@a100-80g", "llama-2-70b@8xa100-80g", "llama-3-8b@a100-80g"]


@pytest.mark.parametrize("name", LAYERED)
def test_a_step_with_one_prompt_is_the_profile_s(name: str) -> None:
    profile = Profile.load(name)
    costs = Costs(profile, overhead_s=0.25)
    for tokens, batch, mean in ((1, 0, 0), (300, 0, 0), (300, 7, 200), (2000, 60, 900)):
        expected = profile.law.prefill(float(tokens), float(tokens), float(batch), float(mean))
        assert costs.mixed([Chunk(tokens)], batch, batch * mean) == pytest.approx(
            0.25 + float(expected), rel=1e-6
        )


def test_chunks_of_a_prompt_are_the_profile_s() -> None:
    profile = Profile.load("llama-2-7b@a100-80g")
    costs = Costs(profile)
    total = sum(costs.mixed([Chunk(100, read, read == 200)], 4, 400) for read in (0, 100, 200))
    assert total == pytest.approx(float(profile.law.prefill(300.0, 100.0, 4.0, 100.0)), rel=2e-3)


def test_two_prompts_in_a_step_share_what_is_paid_once() -> None:
    costs = Costs(Profile.load("llama-2-7b@a100-80g"))
    apart = 2 * costs.mixed([Chunk(200)], 0, 0)
    together = costs.mixed([Chunk(200), Chunk(200)], 0, 0)
    as_one = costs.mixed([Chunk(400)], 0, 0)
    assert together < apart
    assert together == pytest.approx(as_one, rel=0.02)


def test_a_direct_law_reads_and_decodes_in_sum() -> None:
    law = Direct(step=0.02, sequence=0.001, context=1e-5, prefill_step=0.01, prefill_token=2e-4)
    costs = Costs(replace(Profile.load("llama-2-7b@a10g"), law=law))
    assert costs.mixed([Chunk(100), Chunk(50)], 3, 600) == pytest.approx(0.02 + 0.003 + 0.006 + 0.03)
    stretch = costs.stretch(1.0, 5, 3, 600)
    assert stretch.at(6) == pytest.approx(1.0 + 0.02 + 0.003 + 0.006)
    assert stretch.at(7) == pytest.approx(stretch.at(6) + 0.02 + 0.003 + 0.00603)


def test_the_line_is_drawn_anew_where_the_kernel_turns() -> None:
    profile = Profile.load("llama-2-7b@a100-80g")
    assert isinstance(profile.law, Layered)
    law = replace(profile.law, attention=replace(profile.law.attention, turn=100.0, short=1.0, long=2.0))
    costs = Costs(replace(profile, law=law))
    stretch = costs.stretch(0.0, 40, 4, 4 * 97)
    assert stretch.until == 44  # three steps up to a mean of 100, and the step at 100 itself
    later = costs.stretch(stretch.at(44), 44, 4, 4 * 101)
    assert later.growth_s == pytest.approx(2 * stretch.growth_s)
    assert later.until > 1 << 39


def test_a_sliding_window_draws_it_anew_every_few_steps() -> None:
    profile = Profile.load("llama-2-7b@a100-80g")
    shape = replace(profile.shape, window=64, full_layers=0)
    law = replace(profile.law, shape=shape)  # type: ignore[type-var]
    stretch = Costs(replace(profile, shape=shape, law=law)).stretch(0.0, 0, 2, 100)
    assert stretch.until == 64
