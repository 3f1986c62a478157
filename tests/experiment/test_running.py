"""From a setup to a run: the rules of the simulated world, unlike instances, and those that come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.errors import InputError
from l4sim.experiment.resolving import resolve
from l4sim.experiment.running import compare, rules_of
from l4sim.policies.policy import Policy, PolicyEntry
from l4sim.policies.routers import RoundRobin
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.simulator.cluster import Rules
from l4sim.simulator.transport import Network
from l4sim.specs.fleet import Fleet, FleetGroup
from l4sim.specs.options import Options
from l4sim.workload.synth.named import synthesize_named
from l4sim.workload.trace import Trace

UNLIKE = Fleet((FleetGroup("fast", 2, profile="h200-flashinfer"), FleetGroup("slow", 2, profile="h100-sxm")))


@pytest.fixture(scope="module")
def trace() -> Trace:
    return synthesize_named(lengths="chat", requests=80, parameters={"rate_per_s": 4.0})


def test_options_left_alone_are_the_rules_own_defaults() -> None:
    assert rules_of(resolve(Options())) == Rules()


def test_every_rule_is_reached_by_its_option() -> None:
    options = Options(
        message_latency_s=0.1,
        message_jitter_s=0.2,
        message_loss=0.3,
        message_duplication=0.4,
        seed=5,
        max_concurrent_migrations=6,
        migration_last_stage_blocks=7,
        migration_max_stages=8,
        migration_slowdown=0.9,
        migration="recompute",
        failure_detection_s=11,
        fast_forward=False,
    )
    assert rules_of(resolve(options)) == Rules(
        fast_forward=False,
        network=Network(latency_s=0.1, jitter_s=0.2, loss=0.3, duplication=0.4, seed=5),
        failure_detection_s=11,
        migration=MigrationRules(max_concurrent=6, last_stage_blocks=7, max_stages=8, slowdown=0.9, method="recompute"),
    )


@pytest.mark.slow
def test_unlike_instances_serve_at_their_own_speed(trace: Trace) -> None:
    fleets = [Fleet((replace(group, count=4),)) for group in UNLIKE.groups]
    fast, slow = (compare(trace, ["round-robin"], resolve(Options(fleet=fleet)))[0].requests for fleet in fleets)
    [both] = compare(trace, ["round-robin"], resolve(Options(fleet=UNLIKE)))
    requests = both.requests
    assert (requests["status"] == "finished").all()
    assert requests.groupby("first_instance").size().tolist() == [20, 20, 20, 20]
    on_slow = requests["first_instance"] >= 2
    assert requests[on_slow]["tpot_s"].mean() > 1.1 * requests[~on_slow]["tpot_s"].mean()
    assert fast["tpot_s"].mean() < requests["tpot_s"].mean() < slow["tpot_s"].mean()
    # Round-robin sends every request to the same number: a group's instances behave as they do among their like.
    assert requests[on_slow]["e2e_s"].tolist() == slow[on_slow]["e2e_s"].tolist()


def test_an_instance_that_joins_serves_and_one_that_drains_loses_nothing(trace: Trace) -> None:
    fleet = Fleet(UNLIKE.groups[:1])
    [run] = compare(trace, ["least-outstanding"], resolve(Options(fleet=fleet, joins="1@5s", drains="0@8s")))
    requests = run.requests
    assert (requests["status"] == "finished").all()
    later = requests[requests["arrival_s"] > 8]
    assert set(later["first_instance"]) == {1, 2}
    assert set(requests[requests["arrival_s"] < 5]["first_instance"]) == {0, 1}


@pytest.mark.slow
def test_l4_serves_on_unlike_instances_while_some_join_and_drain(trace: Trace) -> None:
    [run] = compare(trace, ["l4"], resolve(Options(fleet=UNLIKE, joins="slow:1@5s", drains="0@8s", failures="3@12s")))
    assert (run.requests["status"] == "finished").all()
    assert 4 in set(run.requests["first_instance"])
    assert run.instances == 5


def test_a_policy_that_cannot_take_instances_in_says_so(trace: Trace) -> None:
    fixed = PolicyEntry("fixed", lambda _: Policy(RoundRobin()), joins=False)
    with pytest.raises(InputError, match="policy 'fixed' takes in no instance that joins"):
        compare(trace, [fixed], resolve(Options(instances=2, joins="1@5s")))
