"""How engines step: each loop is a `Machine` that decides what happens between two steps."""

from __future__ import annotations

from mope.sim.costs import Costs
from mope.sim.engine import Loop, Simulation
from mope.sim.server import ServerConfig


def make_loop(config: ServerConfig, sim: Simulation, costs: Costs, stepwise: bool = False) -> Loop:
    """The loop of a server; `stepwise` makes every step an event."""
    if config.loop == "slora":
        from mope.sim.loops.slora import Slora

        return Slora(config, sim, costs, stepwise)
    if config.loop == "disaggregated":
        from mope.sim.loops.disaggregated import Disaggregated

        return Disaggregated(config, sim, costs, stepwise)
    from mope.sim.loops.mixed import Mixed

    return Mixed(config, sim, costs, stepwise)
