"""L4 from a setting: its demand, plan, prices, agents and router."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from l4sim.cost.affine import fit_affine
from l4sim.policies.l4.affinity import Affinity, Prices
from l4sim.policies.l4.agent import L4Agent, Parts
from l4sim.policies.l4.closed_loop import LoopRate, loop_rate
from l4sim.policies.l4.demand import Demand, geometric_edges, measure_demand
from l4sim.policies.l4.partition import Partition, partition
from l4sim.policies.l4.qoe import Capacity
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.l4.replan import Planning, Replanner
from l4sim.policies.l4.reuse import measure_reuse, prefix_uses
from l4sim.policies.l4.router import L4Router
from l4sim.policies.policy import InstanceFacts, Policy, Setting
from l4sim.workload.histogram import LengthHistogram
from l4sim.workload.trace import IntArray, Trace
from l4sim.workload.transform import chain_arrival_s


def build_l4(setting: Setting, parts: Parts | None = None) -> Policy:
    """L4 with all of its parts, or with those named.

    Raises:
        InputError: there is no plan for the setting's traffic.
    """
    parts = parts or Parts()
    made = setting.plans.plan("l4", lambda: plan_for(setting))
    affinity = _affinity(setting) if setting.follow_prefixes else None
    if affinity is not None:
        # Who is where its prefix lives follows no boundary: stages' loads say nothing about where one belongs.
        parts = replace(parts, refinement=False)
    batches = [forecast.batch for forecast in made.forecasts]
    agents = tuple(
        L4Agent(instance, Ranges(made.plan), batches, parts=parts, seed=setting.seed)
        for instance in range(setting.instances)
    )
    router = L4Router(made.plan, affinity, spill=parts.across, batches=batches)

    def agent_for(instance: int) -> L4Agent:
        # The front end has the instance started, and tells it what it knows itself.
        ranges = router.ranges.copy()
        ranges.add(instance)
        return L4Agent(instance, ranges, router.batches, parts=parts, seed=setting.seed, generation=router.generation)

    return Policy(
        router,
        agents,
        Replanner(made, _planning(setting)) if parts.replan else None,
        partition=made,
        boundary_moves=router.moves,
        agent_for=agent_for,
    )


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


def _planning(setting: Setting) -> Planning:
    facts = planned_as(setting.fleet)
    return Planning(facts.cost, capacity_of(facts), facts.max_model_len)


def _affinity(setting: Setting) -> Affinity:
    """A memory of where prefixes were sent, as large as the fleet's KV caches together."""
    kv_tokens = sum(facts.kv_tokens for facts in setting.fleet)
    mean_output = float(setting.sample().output_tokens.mean())
    return Affinity(_prices(planned_as(setting.fleet), mean_output), setting.prefix_id_tokens, kv_tokens)


def _prices(facts: InstanceFacts, output_tokens: float) -> Prices:
    """What the cost model charges on average, to weigh one thing against another."""
    affine = fit_affine(
        facts.cost,
        max_sequences=facts.max_num_seqs,
        max_tokens=facts.max_num_batched_tokens,
        max_context_tokens=facts.max_model_len,
    )
    return Prices(
        affine.per_prefill_token_s,
        affine.per_prefill_pair_s,
        affine.per_sequence_s,
        affine.per_context_token_s,
        output_tokens,
    )
