"""Composition: from options and a trace to the runs of one policy after the other."""

from l4sim.experiment.planning import histogram_demand, plan, plan_runner_ups, planned_loop, sample_demand, timed_plan
from l4sim.experiment.resolving import resolve
from l4sim.experiment.running import Progress, compare, policy_for, run_built, run_policy, tables
from l4sim.experiment.setup import GroupSetup, Setup, instances_of, joining_of
from l4sim.specs.options import Options

__all__ = [
    "GroupSetup",
    "Options",
    "Progress",
    "Setup",
    "compare",
    "histogram_demand",
    "instances_of",
    "joining_of",
    "plan",
    "plan_runner_ups",
    "planned_loop",
    "policy_for",
    "resolve",
    "run_built",
    "run_policy",
    "sample_demand",
    "tables",
    "timed_plan",
]
