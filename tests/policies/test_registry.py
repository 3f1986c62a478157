"""What the registry makes of a name; each policy's own tests have the rest."""

from __future__ import annotations

import pytest

from l4sim.errors import InputError
from l4sim.policies.agent import Started
from l4sim.policies.l4.agent import RefineTime
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition, StageForecast
from l4sim.policies.plan import GivenPlan
from l4sim.policies.policy import Policy, PolicyEntry
from l4sim.policies.registry import POLICIES, build_policy, check_fleet, policy_entry, policy_name
from l4sim.policies.rivals.llumnix import LlumnixAgent
from l4sim.policies.routers import RoundRobin
from tests.policies.conftest import View
from tests.policies.l4.protocol import THREE_STAGES, timers
from tests.policies.settings import sample, setting

FORECAST = StageForecast(0.5, 2.0, 0.01, 0.1, 1.0, 100.0, 0.01)
PLANNED = Partition(THREE_STAGES, (FORECAST,) * 3, Objective(), 0.03, 0.5)


@pytest.mark.parametrize("follows_prefixes", [False, True])
def test_fenced_l4_refines_boundaries_unless_requests_go_where_their_prefixes_are(follows_prefixes):
    known = {"sample": lambda: sample([100], [50]), "follow_prefixes": True} if follows_prefixes else {}
    policy = build_policy("l4:across", setting(4, plans=GivenPlan(lambda: PLANNED), **known))
    assert len(policy.agents) == 4
    for instance, agent in enumerate(policy.agents):
        kinds = [type(timer.name) for timer in timers(agent.handle(Started(), View(instance), 0.0))]
        assert (RefineTime in kinds) == (not follows_prefixes)


def test_every_entry_says_in_a_line_what_it_does_and_whom_it_follows():
    for name, entry in POLICIES.items():
        assert entry.name == name
        assert entry.source
        assert entry.summary
        assert "\n" not in entry.summary


def test_l4_and_its_variants_are_of_one_kind_and_the_oracle_of_its_own():
    assert {name for name, entry in POLICIES.items() if entry.kind == "l4"} == {
        name for name in POLICIES if name.split(":")[0] == "l4"
    }
    assert [name for name, entry in POLICIES.items() if entry.kind == "oracle"] == ["oracle-length"]


def test_a_policy_of_ones_own_is_a_rival_unless_it_says_otherwise():
    def build(setting):
        return Policy(RoundRobin())

    assert build_policy(("mine", build), setting()).kind == "rival"
    assert build_policy(PolicyEntry("mine", build, kind="baseline"), setting()).kind == "baseline"


def test_a_name_that_is_taken_is_refused_but_the_bundled_entry_itself_is_not():
    own = PolicyEntry("vllm-dp-0.32", lambda setting: Policy(RoundRobin()))
    with pytest.raises(InputError, match=r"'vllm-dp-0\.32' is a bundled policy"):
        policy_entry(own)
    assert policy_name(POLICIES["vllm-dp-0.32"]) == "vllm-dp-0.32"


def test_only_an_oracle_is_told_output_lengths():
    known = setting(output_tokens=lambda: [3, 4])

    def ask(setting):
        assert setting.output_tokens() == [3, 4]
        return Policy(RoundRobin())

    build_policy(PolicyEntry("seer", ask, kind="oracle"), known)
    with pytest.raises(InputError, match=r"'mine' asks for true output lengths.*'oracle'.*'rival'"):
        build_policy(("mine", ask), known)


def test_bundled_policies_cope_with_every_change_of_the_fleet():
    known = {"sample": lambda: sample([10, 500], [5, 5]), "output_tokens": lambda: [5, 5]}
    for name, entry in POLICIES.items():
        policy = build_policy(name, setting(4, plans=GivenPlan(lambda: PLANNED), **known))
        check_fleet(entry, policy, joins=True, drains=True, roles=False)
        if policy.agents:
            assert policy.agent_for is not None
            assert type(policy.agent_for(4)) is type(policy.agents[0])


def test_a_policy_that_cannot_take_in_or_empty_an_instance_says_so():
    router = Policy(RoundRobin())
    fixed = PolicyEntry("fixed", lambda setting: router, joins=False, drains=False, roles=False)
    check_fleet(fixed, router, joins=False, drains=False, roles=False)
    with pytest.raises(InputError, match="'fixed' takes in no instance that joins: accepted is"):
        check_fleet(fixed, router, joins=True, drains=False, roles=False)
    with pytest.raises(InputError, match="'fixed' empties no instance: accepted is"):
        check_fleet(fixed, router, joins=False, drains=True, roles=False)
    with_agents = Policy(RoundRobin(), (LlumnixAgent(0),))
    with pytest.raises(InputError, match="'mine' has agents but no agent_for"):
        check_fleet(("mine", lambda setting: with_agents), with_agents, joins=True, drains=False, roles=False)


def test_a_policy_says_whether_it_heeds_roles() -> None:
    router = Policy(RoundRobin())
    with pytest.raises(InputError, match="policy 'mine' heeds no roles: accepted are groups whose role is both"):
        check_fleet(("mine", lambda setting: router), router, joins=False, drains=False, roles=True)
    heeding = PolicyEntry("heeding", lambda setting: router, roles=True)
    check_fleet(heeding, router, joins=False, drains=False, roles=True)
