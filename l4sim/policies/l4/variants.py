"""L4 from a setting, and its variants: ours without one of its parts, and those whose stages are fences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from l4sim.cost.affine import fit_affine
from l4sim.policies.agent import Agent
from l4sim.policies.l4.affinity import Affinity, Prices
from l4sim.policies.l4.agent import LEVELS, PAPER, L4Agent, Parts
from l4sim.policies.l4.build import capacity_of, plan_for, planned_as
from l4sim.policies.l4.dispatch import OUTSIDE, OWN, Dispatch, ExpectedHits
from l4sim.policies.l4.moving import Mover
from l4sim.policies.l4.partition import Partition
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.l4.replan import Planning, Replanner
from l4sim.policies.l4.router import L4Router
from l4sim.policies.l4.stage_router import StageRouter
from l4sim.policies.policy import Policy, Setting

Part = Literal["stages", "prefixes", "tails", "moves", "bids"]
"""Of L4 as it is ours. ``stages``: a price on leaving the stage of one's length. ``prefixes``: what is cached is not
computed. ``tails``: a request's own wait counts more than others'. ``moves``: who was placed for its prefix may decode
elsewhere. ``bids``: load is balanced where no prefixes are followed."""


def build_l4(setting: Setting, without: Part | None = None) -> Policy:
    """L4 as it is ours, with all of its parts or without one.

    Raises:
        InputError: there is no plan for the setting's traffic.
    """
    made = _plan(setting)
    hits = None if without == "prefixes" else _hits(setting)
    prices = None if without == "moves" or hits is None else _prices(setting)
    bids = without != "bids" and not setting.follow_prefixes
    own, outside = 1 if without == "tails" else OWN, 1 if without == "stages" else OUTSIDE
    router = Dispatch(made.plan, hits, own=own, outside=outside)

    def agent(instance: int, ranges: Ranges) -> Mover:
        return Mover(instance, ranges, prices, bids=bids, seed=setting.seed)

    return _policy(setting, made, router, agent)


def build_fenced(setting: Setting, parts: Parts | None = None) -> Policy:
    """L4 whose stages are fences: dispatch by length within the stage, and agents with all parts, or those named.

    Raises:
        InputError: there is no plan for the setting's traffic.
    """
    parts = parts or Parts()
    made = _plan(setting)
    affinity = _affinity(setting)
    if affinity is not None:
        # Who is where its prefix lives follows no boundary: stages' loads say nothing about where one belongs.
        parts = replace(parts, refinement=False)
    router = L4Router(made.plan, affinity, spill=parts.across, batches=_batches(made))
    return _with_agents(setting, made, router, parts)


def build_paper(setting: Setting) -> Policy:
    """L4 as the paper has it, as far as that is known: nothing spills over, and no prefix is followed.

    Raises:
        InputError: there is no plan for the setting's traffic.
    """
    made = _plan(setting)
    return _with_agents(setting, made, L4Router(made.plan, spill=False, batches=_batches(made)), PAPER)


def build_all_parts(setting: Setting) -> Policy:
    """L4's dispatch as it is ours, and the agents of the fenced one: handover, refinement and bids.

    Raises:
        InputError: there is no plan for the setting's traffic.
    """
    made = _plan(setting)
    return _with_agents(setting, made, Dispatch(made.plan, _hits(setting), batches=_batches(made)), LEVELS["across"])


def _with_agents(setting: Setting, made: Partition, router: StageRouter, parts: Parts) -> Policy:
    def agent(instance: int, ranges: Ranges) -> L4Agent:
        generation = router.generation
        return L4Agent(instance, ranges, router.batches, parts=parts, seed=setting.seed, generation=generation)

    return replace(
        _policy(setting, made, router, agent),
        coordinator=Replanner(made, _planning(setting)) if parts.replan else None,
    )


def _plan(setting: Setting) -> Partition:
    return setting.plans.plan("l4", lambda: plan_for(setting))


def _batches(made: Partition) -> list[float]:
    return [forecast.batch for forecast in made.forecasts]


def _policy(setting: Setting, made: Partition, router: StageRouter, agent: Callable[[int, Ranges], Agent]) -> Policy:
    def agent_for(instance: int) -> Agent:
        # The front end has the instance started, and tells it what it knows itself.
        ranges = router.ranges.copy()
        ranges.add(instance)
        return agent(instance, ranges)

    agents = tuple(agent(instance, Ranges(made.plan)) for instance in range(setting.instances))
    return Policy(router, agents, partition=made, boundary_moves=router.moves, agent_for=agent_for)


def _planning(setting: Setting) -> Planning:
    facts = planned_as(setting.fleet)
    return Planning(facts.cost, capacity_of(facts), facts.max_model_len)


def _hits(setting: Setting) -> ExpectedHits | None:
    if not setting.follow_prefixes:
        return None
    return ExpectedHits(setting.prefix_id_tokens, planned_as(setting.fleet).kv_tokens)


def _affinity(setting: Setting) -> Affinity | None:
    """A memory of where prefixes were sent, as large as the fleet's KV caches together."""
    if not setting.follow_prefixes:
        return None
    return Affinity(_prices(setting), setting.prefix_id_tokens, sum(facts.kv_tokens for facts in setting.fleet))


def _prices(setting: Setting) -> Prices:
    """What the cost model charges on average, to weigh one thing against another."""
    facts = planned_as(setting.fleet)
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
        float(setting.sample().output_tokens.mean()),
    )
