"""Invariants of any world: nothing is lost, nothing runs twice, memory and time add up, skipping steps is exact."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mope.mapper.profile import Profile
from mope.mapper.steps import Direct
from mope.sim.engine import Simulation
from mope.sim.log import Log
from mope.sim.loops.disaggregated import Disaggregated
from mope.sim.loops.mixed import Mixed
from mope.sim.machine import Machine
from mope.sim.sequence import Arrival

Run = Callable[..., Simulation]
Row = tuple[float, str, int, int]

LAWS = (
    Direct(step=0.02, sequence=0.001, context=1e-5, prefill_step=0.01, prefill_token=2e-4),
    Direct(step=0.5, sequence=0.25, context=0.0, prefill_step=0.5, prefill_token=0.0),
)
TINY = st.tuples(
    st.sampled_from([0.0, 0.0, 0.03, 0.25, 1.0, 7.5]),
    st.sampled_from("abc"),
    st.integers(1, 60),
    st.integers(1, 60),
)
POLICIES = ("fcfs", "rpm:3", "vtc", "vtc:oracle", "vtc:forecast", "vtc:mean", "lcf", "equinox")


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """Rows, a policy, a predictor, a law and a server."""
    at, rows = 0.0, []
    for gap, client, prompt, output in draw(st.lists(TINY, min_size=1, max_size=25)):
        at += gap
        rows.append((at, client, prompt, output))
    loop = draw(st.sampled_from(["continuous", "chunked", "slora", "disaggregated"]))
    server: dict[str, Any] = {
        "loop": loop,
        "pool_tokens": draw(st.sampled_from([64, 100, 200, 500, 4000])),
        "block": draw(st.sampled_from([1, 3, 16])),
        "max_seqs": draw(st.sampled_from([1, 2, 5, 100])),
    }
    if loop in ("continuous", "chunked"):
        server["admission"] = draw(st.sampled_from(["reserve", "prompt"]))
    if loop == "chunked":
        server["step_tokens"] = draw(st.sampled_from([2, 7, 64, 512]))
        server["tpot_s"] = draw(st.sampled_from([None, None, 0.05]))
    if loop == "slora":
        server["adapter_tokens"] = draw(st.sampled_from([0, 5]))
    return {
        "rows": rows,
        "policy": draw(st.sampled_from(POLICIES)),
        "predictor": draw(st.sampled_from(["exact", "none", "noise:20", "noise:50%"])),
        "law": draw(st.integers(0, len(LAWS) - 1)),
        "server": server,
    }


@pytest.fixture(scope="session")
def run_any(run_world: Run, round_profile: Profile) -> Run:
    def run(world: dict[str, Any], rows: list[Row] | None = None, **more: Any) -> Simulation:
        profile = replace(round_profile, law=LAWS[world["law"]])
        given_rows = world["rows"] if rows is None else rows
        return run_world(
            given_rows, world["policy"], world["predictor"], profile=profile, **world["server"], **more
        )

    return run


def texts(sim: Simulation) -> list[list[str]]:
    """The log to the last bit; NaN equals NaN."""
    return [[repr(cell) for cell in row] for row in sim.log.rows]


def machines(sim: Simulation) -> list[Machine]:
    loop = sim.loop
    if isinstance(loop, Disaggregated):
        return [loop.decoder]
    assert isinstance(loop, Machine)
    return [loop]


@given(world=worlds())
@settings(max_examples=300)
def test_skipping_steps_gives_the_log_of_stepping(run_any: Run, world: dict[str, Any]) -> None:
    assert texts(run_any(world)) == texts(run_any(world, stepwise=True))


@given(world=worlds())
@settings(max_examples=150)
def test_requests_are_conserved_and_causes_come_first(run_any: Run, world: dict[str, Any]) -> None:
    sim = run_any(world)
    rows = sim.log.rows
    assert sorted(row[0] for row in rows) == list(range(1, len(world["rows"]) + 1))  # type: ignore[type-var]
    for number, client, arrival, admitted, first, finish, prompt, made, asked, _, status in rows:
        at, who, wanted_prompt, wanted = world["rows"][number - 1]  # type: ignore[operator]
        assert (client, arrival, prompt, asked) == (who, at, wanted_prompt, wanted)
        if status == "done":
            assert made == wanted
            assert arrival <= admitted < first <= finish  # type: ignore[operator]
        else:
            assert made == 0
            assert finish == arrival
    finishes = [row[5] for row in rows]
    assert finishes == sorted(finishes)  # type: ignore[type-var]
    assert not sim.open
    assert not sim.queued
    assert not sim.waiting
    assert not sim.scheduler.jobs


@given(world=worlds())
@settings(max_examples=150)
def test_memory_adds_up_and_nobody_waits_beside_an_idle_engine(run_any: Run, world: dict[str, Any]) -> None:
    sim = run_any(world, start=False)
    now = sim.events.now
    while sim.run(1):
        assert sim.events.now >= now
        now = sim.events.now
        for machine in machines(sim):
            blocks, batch = machine.batch.blocks, machine.batch
            held = sum(blocks.of(seq.prompt + batch.made(seq, batch.step)) for seq in batch.running.values())
            assert blocks.at(batch.step) == held + blocks.fixed
            assert held + blocks.fixed <= blocks.total
            assert batch.context == sum(
                seq.prompt + batch.made(seq, batch.step) for seq in batch.running.values()
            )
            assert len(batch) <= world["server"]["max_seqs"]
            if isinstance(machine, Mixed):
                assert machine.due or not sim.queued
    for machine in machines(sim):
        assert not machine.batch.running
        assert machine.batch.blocks.at(machine.batch.step) == machine.batch.blocks.fixed == 0
        assert not machine.batch.loud
    if isinstance(sim.loop, Disaggregated):
        assert sim.loop.reserved == sim.loop.read_tokens == 0


@given(world=worlds())
@settings(max_examples=60)
def test_the_log_run_as_a_trace_gives_the_log(run_any: Run, world: dict[str, Any]) -> None:
    sim = run_any(world)
    rows = sorted(sim.log.rows)
    again = run_any(world, [(row[2], row[1], row[6], row[8]) for row in rows])
    assert texts(again) == texts(sim)


@given(world=worlds(), cut=st.integers(0, 60))
@settings(max_examples=100)
def test_a_run_goes_on_from_a_pickle_as_if_nothing_had_happened(
    run_any: Run, world: dict[str, Any], cut: int
) -> None:
    whole = run_any(world)
    sim = run_any(world, start=False)
    sim.run(cut)
    rows = sim.log.rows
    sim = pickle.loads(pickle.dumps(sim))
    log = Log()
    log.rows = rows
    sim.attach((Arrival(at, who, prompt, output, output) for at, who, prompt, output in world["rows"]), log)
    sim.run()
    assert texts(sim) == texts(whole)


@given(world=worlds(), longer=st.integers(1, 40), data=st.data())
@settings(max_examples=100)
def test_a_true_length_changes_nothing_before_it_shows(
    run_any: Run, world: dict[str, Any], longer: int, data: st.DataObject
) -> None:
    # The slora loop admits by what requests ask for, and an exact or noisy forecast is made of the truth.
    world = {**world, "predictor": "none", "server": {**world["server"], "pool_tokens": 4000}}
    if world["policy"] == "vtc:oracle" or world["server"]["loop"] == "slora":
        return
    changed = data.draw(st.integers(0, len(world["rows"]) - 1))
    rows = list(world["rows"])
    at, who, prompt, output = rows[changed]
    rows[changed] = (at, who, prompt, output + longer)
    one, other = run_any(world), run_any(world, rows)
    shows = next(float(row[5]) for row in one.log.rows if row[0] == changed + 1)  # type: ignore[arg-type]

    def admitted(sim: Simulation) -> list[object]:
        return sorted((row[0], row[3]) for row in sim.log.rows if row[3] < shows)  # type: ignore[operator]

    assert admitted(one) == admitted(other)
