"""From a trace's first part, or a histogram, to a plan for the cluster at hand."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from l4sim.experiment.options import Setup
from l4sim.policies.l4.demand import Demand, geometric_edges, measure_demand
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition, partition, runner_ups
from l4sim.policies.l4.qoe import Capacity
from l4sim.policies.l4.reuse import Reuse, measure_reuse, prefix_uses
from l4sim.workload.histogram import read_histogram
from l4sim.workload.trace import FloatArray, IntArray, Trace
from l4sim.workload.transform import chain_arrival_s


def sample_demand(trace: Trace, setup: Setup) -> Demand:
    """The demand that a plan may know: the histogram that the options name, else that of the trace's first part.

    All of the trace where that part is under 50 requests. A closed-loop turn counts as arriving with its session's
    first one: the rate is what matters here. Requests that the engine would reject are left out.

    Raises:
        InputError: the histogram cannot be read, or the sample has no rate.
    """
    if setup.options.plan_histogram is not None:
        return histogram_demand(setup.options.plan_histogram, setup)
    count = sample_size(trace, setup)
    prompt, output = trace.prompt_tokens[:count], trace.output_tokens[:count]
    arrival_s = chain_arrival_s(trace)[:count]
    duration_s = float(np.ptp(arrival_s))
    rates = np.full(count, 1.0 / duration_s if duration_s > 0 else np.nan)
    if trace.prefix is None or not setup.engine.prefix_caching:
        return _demand(prompt, output, rates, setup, arrival_s=arrival_s)
    uses = prefix_uses(prompt, trace.prefix)
    delay_s = trace.delay_s[:count]
    interval_s = np.where(np.isnan(delay_s), arrival_s - arrival_s[uses.earlier], delay_s)
    edges = geometric_edges(setup.engine.max_model_len)
    reuse = measure_reuse(uses, interval_s, prompt, rates, edges, followed=setup.options.prefix_affinity)
    return _demand(prompt, output, rates, setup, prompt - uses.tokens, arrival_s, reuse)


def histogram_demand(path: Path, setup: Setup) -> Demand:
    """The demand of a histogram in a CSV file.

    Raises:
        InputError: the histogram cannot be read, or no row of it has a rate and fits the engine.
    """
    given = read_histogram(path)
    return _demand(given.prompt_tokens, given.output_tokens, given.requests_per_s, setup)


def _demand(
    prompt: IntArray,
    output: IntArray,
    rates: FloatArray,
    setup: Setup,
    new_prompt: IntArray | None = None,
    arrival_s: FloatArray | None = None,
    reuse: Reuse | None = None,
) -> Demand:
    return measure_demand(
        prompt,
        output,
        rates,
        geometric_edges(setup.engine.max_model_len),
        new_prompt,
        arrival_s=arrival_s,
        reuse=reuse,
        kv_tokens=capacity_of(setup).kv_tokens,
    )


def capacity_of(setup: Setup) -> Capacity:
    """What an instance holds and takes."""
    engine = setup.engine
    return Capacity(engine.kv_blocks * engine.block_tokens, engine.max_num_seqs, engine.max_num_batched_tokens)


def sample_size(trace: Trace, setup: Setup) -> int:
    """How many of the trace's first requests a plan may know."""
    return max(int(len(trace) * setup.options.plan_sample), min(50, len(trace)))


def plan(demand: Demand, setup: Setup, *, objective: Objective | None = None, stages: int | None = None) -> Partition:
    """The partition of the cluster's instances for a demand.

    Raises:
        InputError: more stages than there can be.
    """
    return partition(
        demand, setup.cost, capacity_of(setup), setup.options.instances, objective=objective, stages=stages
    )


def plan_runner_ups(demand: Demand, setup: Setup, made: Partition) -> tuple[Partition, ...]:
    """The best plans with other numbers of stages."""
    return runner_ups(demand, setup.cost, capacity_of(setup), setup.options.instances, than=made)


def timed_plan(
    demand: Demand, setup: Setup, *, objective: Objective | None = None, stages: int | None = None
) -> tuple[Partition, float]:
    """The partition for a demand, and the seconds from this histogram to the plan, cost tables included."""
    start = time.perf_counter()
    made = plan(demand, setup, objective=objective, stages=stages)
    return made, time.perf_counter() - start
