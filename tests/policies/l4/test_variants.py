"""L4 and its variants built from a setting: which plan they go by, and what they are made of."""

from __future__ import annotations

import pytest

from l4sim.policies.agent import InstanceUp, PeerDied, SetTimer, Started, Watch
from l4sim.policies.l4.build import plan_for
from l4sim.policies.l4.messages import Boundary
from l4sim.policies.l4.replan import Replanner
from l4sim.policies.l4.variants import build_l4
from l4sim.policies.plan import GivenPlan, SharedPlans
from l4sim.policies.registry import build_policy
from tests.policies.conftest import View
from tests.policies.settings import sample, setting

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


def test_only_the_variant_that_plans_anew_has_a_coordinator():
    assert build_policy("l4:across", traffic()).coordinator is None
    assert isinstance(build_policy("l4:replan", traffic()).coordinator, Replanner)


def test_an_instance_that_joins_gets_an_agent_that_knows_what_the_front_end_knows():
    policy = build_policy("l4:across", traffic(instances=4))
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


def first_instructions(name, **changes):
    return list(build_policy(name, traffic(**changes)).agents[0].handle(Started(), View(0), 0.0))


def test_load_is_bid_for_where_no_prefixes_are_followed_and_who_follows_one_may_move_on_where_they_are():
    bids, moves = first_instructions("l4"), first_instructions("l4", follow_prefixes=True)
    assert [type(instruction) for instruction in bids] == [SetTimer]
    assert moves == [Watch(0)]


@pytest.mark.parametrize(
    ("name", "follow_prefixes"), [("l4:no-bids", False), ("l4:no-moves", True), ("l4:no-prefixes", True)]
)
def test_each_of_these_can_be_left_out(name, follow_prefixes):
    assert first_instructions(name, follow_prefixes=follow_prefixes) == []
