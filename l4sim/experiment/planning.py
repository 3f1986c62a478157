"""What a policy may know of a setup and a trace, and L4's plan for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from l4sim.experiment.setup import GroupSetup, Setup, instances_of
from l4sim.policies.l4 import build
from l4sim.policies.l4.closed_loop import LoopRate
from l4sim.policies.l4.demand import Demand
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition, partition, runner_ups
from l4sim.policies.plan import Plans, SharedPlans
from l4sim.policies.policy import InstanceFacts, Setting
from l4sim.runtime.block_keys import prefix_id_tokens
from l4sim.workload.histogram import LengthHistogram, read_histogram
from l4sim.workload.trace import Trace
from l4sim.workload.transform import take


def setting_for(trace: Trace, setup: Setup, plans: Plans | None = None) -> Setting:
    """What policies may know of a run of this trace. ``plans`` is shared by those that may share a plan."""
    options = setup.options
    with_prefixes = options.prefix_caching and trace.prefix is not None

    def sample() -> Trace:
        known = take(trace, np.arange(sample_size(trace, setup)))
        return known if with_prefixes else replace(known, prefix=None)

    return Setting(
        fleet=fleet_facts(setup),
        seed=options.seed,
        sample=sample,
        histogram=_histogram(options.plan_histogram),
        prefix_id_tokens=prefix_id_tokens(trace, options.block_size),
        follow_prefixes=options.prefix_affinity and with_prefixes,
        output_tokens=trace.output_tokens.tolist,
        plans=SharedPlans() if plans is None else plans,
    )


def fleet_facts(setup: Setup) -> tuple[InstanceFacts, ...]:
    """What policies may know of every instance, by number."""
    return tuple(_facts(group) for group in instances_of(setup))


def _facts(group: GroupSetup) -> InstanceFacts:
    engine = group.engine
    return InstanceFacts(
        group.kind,
        group.cost,
        engine.kv_tokens,
        engine.max_num_seqs,
        engine.max_num_batched_tokens,
        engine.max_model_len,
    )


def _histogram(path: Path | None) -> Callable[[], LengthHistogram] | None:
    return None if path is None else lambda: read_histogram(path)


def sample_size(trace: Trace, setup: Setup) -> int:
    """How many of the trace's first requests a plan may know: all of the trace where their share is under 50."""
    return max(int(len(trace) * setup.options.plan_sample), min(50, len(trace)))


def sample_demand(trace: Trace, setup: Setup) -> Demand:
    """The demand that L4 plans for: that of the histogram which the options name, else of the trace's first part.

    Raises:
        InputError: the histogram cannot be read, or the sample has no rate.
    """
    return build.demand_for(setting_for(trace, setup))


def planned_loop(trace: Trace, setup: Setup) -> LoopRate | None:
    """The rate that plans for a closed loop are made for; None where a trace's times or a histogram tell it.

    Raises:
        InputError: no request of the trace's first part fits an instance.
    """
    return build.loop_rate_for(setting_for(trace, setup))


def histogram_demand(path: Path, setup: Setup) -> Demand:
    """The demand of a histogram in a CSV file.

    Raises:
        InputError: the histogram cannot be read, or no row of it has a rate and fits the engine.
    """
    return build.histogram_demand(read_histogram(path), build.planned_as(fleet_facts(setup)))


def plan(demand: Demand, setup: Setup, *, objective: Objective | None = None, stages: int | None = None) -> Partition:
    """The partition of the cluster's instances for a demand.

    Raises:
        InputError: more stages than there can be.
    """
    fleet = fleet_facts(setup)
    facts = build.planned_as(fleet)
    return partition(demand, facts.cost, build.capacity_of(facts), len(fleet), objective=objective, stages=stages)


def plan_runner_ups(demand: Demand, setup: Setup, made: Partition) -> tuple[Partition, ...]:
    """The best plans with other numbers of stages."""
    fleet = fleet_facts(setup)
    facts = build.planned_as(fleet)
    return runner_ups(demand, facts.cost, build.capacity_of(facts), len(fleet), than=made)


def timed_plan(
    demand: Demand, setup: Setup, *, objective: Objective | None = None, stages: int | None = None
) -> tuple[Partition, float]:
    """The partition for a demand, and the seconds from this histogram to the plan, cost tables included."""
    start = time.perf_counter()
    made = plan(demand, setup, objective=objective, stages=stages)
    return made, time.perf_counter() - start
