"""L4 built from a setting: what it plans for, and which plan it goes by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.errors import InputError
from l4sim.policies.agent import InstanceUp, PeerDied, Started, Watch
from l4sim.policies.l4.build import build_l4, capacity_of, demand_for, plan_for, planned_as
from l4sim.policies.l4.messages import Boundary
from l4sim.policies.l4.replan import Replanner
from l4sim.policies.plan import GivenPlan, SharedPlans
from l4sim.policies.registry import build_policy
from l4sim.policies.views import InstanceKind
from l4sim.workload.histogram import LengthHistogram
from l4sim.workload.trace import PrefixBlocks
from tests.policies.conftest import View
from tests.policies.settings import FACTS, sample, setting, unasked

MIXED = {"prompt_tokens": [20, 30, 40, 500] * 10, "output_tokens": [50, 20, 90, 100] * 10}


def traffic(**changes):
    return setting(**{"sample": lambda: sample(**MIXED), "plans": SharedPlans()} | changes)


def test_policies_that_share_plans_plan_once():
    asked = []

    def known():
        asked.append(None)
        return sample(**MIXED)

    shared = traffic(sample=known)
    first, second = (build_policy(name, shared) for name in ("l4:plan", "l4"))
    assert len(asked) == 1
    assert first.partition is second.partition


def test_a_given_plan_is_gone_by_and_none_is_made():
    recorded = plan_for(traffic())
    policy = build_l4(setting(plans=GivenPlan(lambda: recorded)))
    assert policy.partition is recorded


def test_a_histogram_is_planned_for_in_place_of_the_sample():
    given = LengthHistogram(np.array([100]), np.array([10]), np.array([2.5]))
    demand = demand_for(traffic(sample=unasked("a sample"), histogram=lambda: given))
    assert demand.requests_per_s == 2.5
    assert demand.reuse is None


def test_a_sample_arrives_at_the_rate_that_it_came_with():
    assert demand_for(traffic()).requests_per_s == pytest.approx(40 / 39)


def test_a_sample_of_one_moment_has_no_rate():
    at_once = sample(**MIXED, arrival_s=np.zeros(40))
    with pytest.raises(InputError, match="positive arrival rate"):
        plan_for(traffic(sample=lambda: at_once))


def test_prefixes_that_come_back_are_part_of_the_demand():
    prefix = PrefixBlocks(np.array([1, 2, 3, 1, 2, 4]), np.array([0, 3, 6]), 16)
    twice = sample([48, 48], [10, 10], prefix=prefix)
    demand = demand_for(traffic(sample=lambda: twice, follow_prefixes=True))
    assert demand.reuse is not None
    assert demand.reuse.followed
    assert (demand.arrivals_per_s * (demand.prompt_tokens - demand.new_prompt_tokens)).sum() == pytest.approx(32)
    assert demand_for(traffic(sample=lambda: replace(twice, prefix=None))).reuse is None


def test_a_mixed_fleet_is_planned_as_its_slowest_instance_and_of_these_the_smallest():
    slow = replace(FACTS, kind=InstanceKind("old", "h20", "both", 1, 0.5))
    small = replace(slow, kv_tokens=FACTS.kv_tokens // 2)
    assert planned_as((FACTS, slow, small, FACTS)) is small
    assert capacity_of(small).kv_tokens == FACTS.kv_tokens // 2


def test_only_the_variant_that_plans_anew_has_a_coordinator():
    assert build_policy("l4", traffic()).coordinator is None
    assert isinstance(build_policy("l4:replan", traffic()).coordinator, Replanner)


def test_an_instance_that_joins_gets_an_agent_that_knows_what_the_front_end_knows():
    policy = build_policy("l4", traffic(instances=4))
    router = policy.router
    router.receive(0, Boundary(0, 5, 77), 30.0)
    router.hear(PeerDied(1), 40.0)
    router.hear(InstanceUp(4), 50.0)
    agent = policy.agent_for(5)
    router.hear(InstanceUp(5), 60.0)
    stage = router.ranges.stage_of_instance(5)
    watched = [i.boundary_tokens for i in agent.handle(Started(), View(5), 60.0) if isinstance(i, Watch)]
    assert watched == [router.ranges.range_of(stage)[1]]
    assert agent.handle(InstanceUp(5), View(5), 60.0) == ()
