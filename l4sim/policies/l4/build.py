"""What L4 plans from a setting: its demand, and its plan."""

from __future__ import annotations

import numpy as np

from l4sim.policies.l4.closed_loop import LoopRate, loop_rate
from l4sim.policies.l4.demand import Demand, geometric_edges, measure_demand
from l4sim.policies.l4.partition import Partition, partition
from l4sim.policies.l4.qoe import Capacity
from l4sim.policies.l4.reuse import measure_reuse, prefix_uses
from l4sim.policies.policy import InstanceFacts, Setting
from l4sim.workload.histogram import LengthHistogram
from l4sim.workload.trace import IntArray, Trace
from l4sim.workload.transform import chain_arrival_s


def plan_for(setting: Setting) -> Partition:
    """The plan for the traffic and the fleet of a setting.

    Raises:
        InputError: the traffic has no rate, or no request that an instance can serve.
    """
    facts = planned_as(setting.fleet)
    return partition(demand_for(setting), facts.cost, capacity_of(facts), setting.instances)


def planned_as(fleet: tuple[InstanceFacts, ...]) -> InstanceFacts:
    """The instance that all are planned as. **[ours]** Of a mixed fleet the slowest, of equals the smallest.

    A plan that these carry is carried by the others too.
    """
    return min(fleet, key=lambda facts: (facts.kind.relative_speed, facts.kv_tokens))


def capacity_of(facts: InstanceFacts) -> Capacity:
    """What an instance holds and takes."""
    return Capacity(facts.kv_tokens, facts.max_num_seqs, facts.max_num_batched_tokens)


def demand_for(setting: Setting) -> Demand:
    """The demand to plan for: the histogram that the user gave, else the sample's.

    Raises:
        InputError: as `sample_demand` and `histogram_demand`.
    """
    facts = planned_as(setting.fleet)
    if setting.histogram is not None:
        return histogram_demand(setting.histogram(), facts)
    return sample_demand(setting.sample(), facts, setting.instances, follow_prefixes=setting.follow_prefixes)


def loop_rate_for(setting: Setting) -> LoopRate | None:
    """The rate that a plan is made for where requests come so many at a time; None where times or the user tell it.

    Raises:
        InputError: as `loop_rate`.
    """
    sample = setting.sample()
    if setting.histogram is not None or sample.concurrency is None:
        return None
    return loop_rate(sample, planned_as(setting.fleet), setting.instances, _new_prompt_tokens(sample))


def histogram_demand(histogram: LengthHistogram, facts: InstanceFacts) -> Demand:
    """The demand of a histogram of lengths.

    Raises:
        InputError: no row of it has a rate and fits the instance.
    """
    return measure_demand(
        histogram.prompt_tokens,
        histogram.output_tokens,
        histogram.requests_per_s,
        geometric_edges(facts.max_model_len),
        kv_tokens=facts.kv_tokens,
    )


def sample_demand(sample: Trace, facts: InstanceFacts, instances: int, *, follow_prefixes: bool) -> Demand:
    """The demand of a sample of requests, prefixes that come back included.

    A closed-loop turn counts as arriving with its session's first one: the rate is what matters here. Where requests
    come so many at a time, they are taken to come evenly, at the rate that this settles at (`loop_rate`). Requests that
    an instance would reject are left out.

    Raises:
        InputError: the sample has no duration, or no request that fits the instance.
    """
    prompt, looped = sample.prompt_tokens, sample.concurrency is not None
    if looped:
        rate_per_s = loop_rate(sample, facts, instances, _new_prompt_tokens(sample)).requests_per_s
        arrival_s = np.arange(len(sample)) / rate_per_s
        rates_per_s = np.full(len(sample), rate_per_s / len(sample))
    else:
        arrival_s = chain_arrival_s(sample)
        duration_s = float(np.ptp(arrival_s))
        rates_per_s = np.full(len(sample), 1.0 / duration_s if duration_s > 0 else np.nan)
    edges = geometric_edges(facts.max_model_len)
    new_prompt, reuse = None, None
    if sample.prefix is not None:
        uses = prefix_uses(prompt, sample.prefix)
        new_prompt = prompt - uses.tokens
        since_arrival_s = arrival_s - arrival_s[uses.earlier]
        interval_s = np.where(np.isnan(sample.delay_s), since_arrival_s, sample.delay_s)
        reuse = measure_reuse(uses, interval_s, prompt, rates_per_s, edges, followed=follow_prefixes)
    return measure_demand(
        prompt,
        sample.output_tokens,
        rates_per_s,
        edges,
        new_prompt,
        # A closed loop has no bursts: what is sent waits for what ends.
        arrival_s=None if looped else arrival_s,
        reuse=reuse,
        kv_tokens=facts.kv_tokens,
    )


def _new_prompt_tokens(sample: Trace) -> IntArray:
    """What of each prompt no earlier one had; shape ``[n]``."""
    prompt = sample.prompt_tokens
    return prompt if sample.prefix is None else prompt - prefix_uses(prompt, sample.prefix).tokens
