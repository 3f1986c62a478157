"""A policy of one's own, run by the API beside the bundled ones."""

from __future__ import annotations

import pytest

import l4sim
from l4sim.errors import InputError
from l4sim.policies.policy import Policy, PolicyEntry
from l4sim.policies.routers import RoundRobin

CLUSTER = l4sim.Cluster(instances=3, profile="rtx-pro-6000")


class Last:
    """Sends everything to the last instance."""

    def route(self, request, instances):
        return len(instances) - 1


@pytest.fixture(scope="module")
def trace():
    return l4sim.synthesize("chat", requests=30, rate_per_s=5, max_model_len=8192)


@pytest.mark.slow
def test_its_router_decides(trace):
    result = l4sim.replay(trace, ("last", lambda setting: Policy(Last())), CLUSTER)
    assert set(result.requests["first_instance"]) == {2}
    assert list(result.table.index) == ["last"]


@pytest.mark.slow
def test_a_copy_of_a_bundled_policy_does_what_that_one_does(trace):
    result = l4sim.compare(trace, ["round-robin", ("copy", lambda setting: Policy(RoundRobin()))], CLUSTER)
    bundled, copy = (run.requests.drop(columns="policy") for run in result.runs)
    assert copy.equals(bundled)


def test_its_builder_is_told_the_setting(trace):
    settings = []

    def build(setting):
        settings.append(setting)
        return Policy(Last())

    l4sim.replay(trace, ("last", build), l4sim.Cluster(instances=3, seed=7))
    [setting] = settings
    assert (setting.instances, setting.seed) == (3, 7)
    assert len(setting.sample()) == 30
    with pytest.raises(InputError, match=r"'last' asks for true output lengths.* of kind 'rival'"):
        setting.output_tokens()


@pytest.mark.slow
def test_it_may_say_that_it_is_an_oracle(trace):
    known = []

    def build(setting):
        known.extend(setting.output_tokens())
        return Policy(Last())

    result = l4sim.compare(trace, [PolicyEntry("seer", build, kind="oracle"), "l4"], CLUSTER)
    assert known == trace.output_tokens.tolist()
    assert [summary["kind"] for summary in result.summaries] == ["oracle", "l4"]


def test_it_may_not_take_a_bundled_name(trace):
    with pytest.raises(InputError, match="'l4' is a bundled policy"):
        l4sim.replay(trace, ("l4", lambda setting: Policy(Last())), CLUSTER)


def test_two_may_not_have_one_name(trace):
    own = ("mine", lambda setting: Policy(Last()))
    with pytest.raises(InputError, match="'mine' is named twice"):
        l4sim.compare(trace, [own, own], CLUSTER)


def test_a_builder_that_makes_no_policy_is_told_so(trace):
    with pytest.raises(InputError, match="'mine': its builder must return a Policy, not a Last"):
        l4sim.replay(trace, ("mine", lambda setting: Last()), CLUSTER)
