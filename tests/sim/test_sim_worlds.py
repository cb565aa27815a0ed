"""Tiny worlds with exact answers: who gets which token when, in each loop. Every step takes one second."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mope.mapper.profile import Profile
from mope.sim.costs import Costs
from mope.sim.engine import Simulation

Run = Callable[..., Simulation]


def when(sim: Simulation) -> dict[str, tuple[float, float]]:
    """Client -> (first token, last token)."""
    return {str(row[1]): (row[4], row[5]) for row in sim.log.rows}  # type: ignore[misc]


def test_continuous_reads_a_prompt_beside_decodes(run_world: Run) -> None:
    sim = run_world([(0, "a", 2, 3), (1.5, "b", 2, 2)], loop="continuous")
    assert when(sim) == {"a": (1, 3), "b": (3, 4)}  # b is seen at 2, read from 2 to 3 while a makes its last


def test_chunked_reads_a_prompt_within_the_budget_that_decodes_leave(run_world: Run) -> None:
    sim = run_world([(0, "a", 6, 4), (0.5, "b", 6, 1)], loop="chunked", step_tokens=4)
    # a: 4 + 2 tokens, beside the first 2 of b; then a decodes and leaves 3 tokens of each step to b
    assert when(sim) == {"a": (2, 5), "b": (4, 4)}


def test_slora_prefills_alone_and_only_every_ten_steps(run_world: Run) -> None:
    sim = run_world([(0, "a", 2, 15), (0.5, "b", 2, 2)], loop="slora")
    # a decodes from 1 to 11, waits for the prefill of b until 12, both decode
    assert when(sim) == {"a": (1, 16), "b": (12, 13)}


def test_slora_asks_at_once_where_nothing_runs(run_world: Run) -> None:
    sim = run_world([(0, "a", 2, 3), (0.5, "b", 2, 1)], loop="slora")
    assert when(sim) == {"a": (1, 3), "b": (4, 4)}


def test_slora_stops_at_the_first_that_does_not_fit(run_world: Run) -> None:
    rows = [(0, "a", 100, 50), (0.1, "large", 300, 50), (0.2, "small", 10, 2)]
    sim = run_world(rows, loop="slora", pool_tokens=460, adapter_tokens=0)
    first = when(sim)
    # 149 + 301 tokens and those that a has still to make stay below 460 from 40 s on; small waits behind large
    assert first["large"][0] == first["small"][0] == 41


def test_disaggregated_moves_the_cache_between_engines(run_world: Run, round_profile: Profile) -> None:
    sim = run_world([(0, "a", 8, 3), (0.25, "b", 8, 1)], loop="disaggregated")
    moved = Costs(round_profile).transfer(8)
    assert moved > 0
    assert when(sim) == {"a": (1, 1 + moved + 2), "b": (2, 2)}


def test_a_batch_shares_steps_and_grows_slower(run_world: Run, round_profile: Profile) -> None:
    from dataclasses import replace

    from mope.mapper.steps import Direct

    law = Direct(step=1.0, sequence=0.5, context=0.01, prefill_step=0.0, prefill_token=0.1)
    profile = replace(round_profile, law=law)
    sim = run_world([(0, "a", 10, 3)], profile=profile, loop="slora")
    # prefill 1.0; steps of 1 + 0.5 + 0.01 * 11 and 0.01 * 12
    first, last = when(sim)["a"]
    assert first == 1.0
    assert last == pytest.approx(1.0 + 1.61 + 1.62, abs=1e-12)


def test_preemption_by_recompute(run_world: Run) -> None:
    rows = [(0, "a", 4, 8), (0, "b", 4, 8)]
    sim = run_world(
        rows, loop="continuous", admission="prompt", pool_tokens=16, block=4, watermark=0.0, max_seqs=4
    )
    # At 5 s each has made 5 and needs room for 9 tokens, a third block, of 4 in all: b gives way. a is done at
    # 8 s; from there b reads its prompt and 5 tokens again, which makes its sixth at 9 s.
    assert when(sim) == {"a": (1, 8), "b": (1, 11)}
    assert [row[9] for row in sim.log.rows] == [0, 1]


def test_what_never_fits_is_refused_with_the_reason(run_world: Run) -> None:
    rows = [(0, "a", 90, 20), (1, "b", 30, 3), (2, "c", 10, 95)]
    sim = run_world(rows, loop="continuous", pool_tokens=100, block=4, max_prompt=50)
    assert sim.log.count == {
        "prompt above 50 tokens": 1,
        "done": 1,
        "larger than the KV cache of 100 tokens": 1,
    }


def test_a_rate_limit_refuses_and_is_counted(run_world: Run) -> None:
    sim = run_world([(float(i), "a", 2, 1) for i in range(5)], "rpm:2")
    assert sim.log.count == {"done": 2, "refused by the policy": 3}


def test_slots_bound_the_batch(run_world: Run) -> None:
    sim = run_world([(0, "a", 2, 3), (0, "b", 2, 3)], loop="continuous", max_seqs=1)
    assert when(sim) == {"a": (1, 3), "b": (4, 6)}


def test_a_wished_step_time_shrinks_the_budget(run_world: Run, round_profile: Profile) -> None:
    from dataclasses import replace

    from mope.mapper.steps import Direct

    law = Direct(step=0.0, sequence=0.0, context=0.0, prefill_step=0.0, prefill_token=0.1)
    profile = replace(round_profile, law=law)
    sim = run_world([(0, "a", 100, 1)], profile=profile, loop="chunked", step_tokens=80, tpot_s=2.0)
    assert when(sim)["a"][0] == pytest.approx(10.0)  # five steps of 20 tokens, none above 2 s
    assert sim.events._number == 1 + 1 + 5  # the arrival, waking up, the steps


def test_vtc_serves_the_client_with_less_service(run_world: Run) -> None:
    rows = [(0, "much", 10, 4), *((0.1 * i, "much", 10, 4) for i in range(1, 4)), (0.5, "new", 10, 4)]
    finish = [str(row[1]) for row in run_world(rows, "vtc", loop="continuous", max_seqs=1).log.rows]
    assert finish == ["much", "new", "much", "much", "much"]
    finish = [str(row[1]) for row in run_world(rows, "fcfs", loop="continuous", max_seqs=1).log.rows]
    assert finish == ["much", "much", "much", "much", "new"]
