"""Worlds with a known truth: a simulated marketing company, its alerts, and what its teams did about them.

Belongs here: everything that invents data from a seed, for the demo, the tests and the benchmarks.
Does not belong here: anything that learns, scores or flags (`triage/`), and anything that reads a warehouse.

`simulate(WorldConfig(seed=1))` gives a `World`: clean frames as the warehouse would hold them, and
what no warehouse knows: the true probability that each alert is acted on, and which alerts a bug
produced. `export_messy(world, directory)` writes the same alerts as the untidy files that real systems
export.

Modules: `config` (what can be asked for), `company` (rules, teams, campaigns), `volume` (when alerts are raised, floods
and incidents), `facts` (what they say), `decisions` (the true probability, what people did and when), `world` (all of
it together), `export` (files).
"""

from dagster_project.simulator.config import WorldConfig
from dagster_project.simulator.decisions import ACTION_TYPES
from dagster_project.simulator.export import MAX_CLOCK_SKEW_SECONDS, MessyExport, export_messy
from dagster_project.simulator.world import World, simulate

__all__ = [
    "ACTION_TYPES",
    "MAX_CLOCK_SKEW_SECONDS",
    "MessyExport",
    "World",
    "WorldConfig",
    "export_messy",
    "simulate",
]
