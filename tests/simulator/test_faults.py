"""Instances that die, worked by hand; `test_properties` has what holds under any faults."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.policies.agent import Migrate, PeerDied, SetTimer, Started, TimerFired
from l4sim.policies.routers import RoundRobin
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.simulator import Rules, simulate
from l4sim.specs.link import Link
from l4sim.specs.placement import Placement
from tests.simulator.conftest import make_trace, requests, texts
from tests.simulator.test_migration import FirstInstance, Mover

COST = AffineCost(base_s=0.010)


def run(trace, *, failures, router=None, agents=(), coordinator=None, instances=2, **engine):
    options = {"kv_blocks": 40, "max_model_len": 500, "max_num_seqs": 8, "max_num_batched_tokens": 64} | engine
    link = Link("test", bytes_per_s=1e6, latency_s=0.001)
    return simulate(
        trace,
        router=router or RoundRobin(),
        agents=agents,
        coordinator=coordinator,
        cluster=Placement(instances, intra=link, inter=link),
        engine=EngineConfig(async_scheduling=False, **options),
        cost=COST,
        kv_bytes_per_token=1_000,
        failures=failures,
        rules=Rules(migration=MigrationRules(last_stage_blocks=1, slowdown=0.0)),
    )


def first(columns):
    """The first row of a table."""
    return {name: values[0] for name, values in columns.items()}


def test_a_request_starts_over_elsewhere_and_keeps_the_tokens_that_it_had_got():
    # The first token at 0.010, four more by 0.055. Noticed a second later: 15 tokens are computed by 1.065, which
    # yields the 6th token, and 14 more follow.
    ended = first(requests(run(make_trace([0.0], [10], [20]), failures=((0, 0.055),))))
    assert ended["ttft_s"] == pytest.approx(0.010)
    assert ended["e2e_s"] == pytest.approx(1.065 + 14 * 0.010)
    assert ended["max_itl_s"] == pytest.approx(1.065 - 0.050)
    assert (ended["first_instance"], ended["last_instance"], ended["preemptions"]) == (0, 1, 1)


def test_an_iteration_that_the_death_cuts_short_counts_for_nothing():
    ended = first(requests(run(make_trace([0.0], [10], [20]), failures=((0, 0.009),))))
    assert ended["ttft_s"] == pytest.approx(1.009 + 0.010)
    assert ended["max_itl_s"] == pytest.approx(0.010)


def test_a_queued_request_moves_on_without_having_lost_anything():
    trace = make_trace([0.0, 0.001], [10, 10], [100, 3])
    ended = requests(run(trace, failures=((0, 0.5),), router=FirstInstance(), max_num_seqs=1))
    assert ended["preemptions"].tolist() == [1, 0]
    assert ended["last_instance"].tolist() == [1, 1]


def test_the_death_of_an_idle_instance_costs_nothing():
    trace = make_trace([0.0, 1.0, 2.0], [10, 10, 10], [5, 5, 5])
    ended = requests(run(trace, failures=((1, 0.5),)))
    assert ended["e2e_s"] == pytest.approx([0.050] * 3)
    assert ended["last_instance"].tolist() == [0, 0, 0]


def test_a_death_after_the_end_or_a_second_one_changes_nothing():
    trace = make_trace([0.0, 0.001], [10, 10], [20, 20])
    once = run(trace, failures=((0, 0.055),))
    again = run(trace, failures=((0, 0.055), (0, 0.075), (1, 99.0)))
    assert once.requests.numbers.tobytes() == again.requests.numbers.tobytes()
    assert once.changes == again.changes == ((0.055, 0, "died", 1),)
    assert once.end_s < 99.0


def test_without_any_instance_requests_fail_and_so_do_the_turns_after_them():
    trace = make_trace([0.0, np.nan, 5.0], [10, 10, 10], [20, 5, 5], after=[-1, 0, -1], delay_s=[np.nan, 0.5, np.nan])
    result = run(trace, failures=((0, 0.055), (1, 0.065)))
    ended = requests(result)
    assert ended["status"].tolist() == [2, 2, 2]
    assert set(texts(result.requests, "reason")) == {"no instance is left"}
    assert ended["arrival_s"][1] == pytest.approx(1.055 + 0.5), "noticed after a second, when there is nowhere to go"
    assert np.isnan(ended["e2e_s"]).all()


# Migrations: as in test_migration, the copy begins at 0.110, the request pauses at 0.170, and moves in at 0.177.


@pytest.mark.parametrize(
    ("instance", "time_s", "end_s", "reason"),
    [
        # Copying to nobody pauses nobody.
        (1, 0.145, 0.300, "the destination has died"),
        # The request is back in the source's batch at once: 17 tokens it had at 0.170, 13 are left.
        (1, 0.173, 0.173 + 13 * 0.010, "the destination has died"),
        # With 14 tokens it starts over at 1.145: one prompt iteration, 15 more.
        (0, 0.145, 1.145 + 16 * 0.010, "the source has died"),
        # What it lacks was on its way: with 17 tokens it starts over at 1.173.
        (0, 0.173, 1.173 + 13 * 0.010, "the source has died"),
    ],
)
def test_a_death_ends_a_migration_and_the_request_goes_on(instance, time_s, end_s, reason):
    agents = [Mover(50, 1), Mover(None, 0)]
    result = run(make_trace([0.0], [40], [30]), failures=((instance, time_s),), router=FirstInstance(), agents=agents)
    ended, moved = first(requests(result)), next(iter(result.migrations))
    assert ended["e2e_s"] == pytest.approx(end_s)
    assert ended["migrations"] == 0
    assert ended["preemptions"] == (instance == 0)
    assert (moved.status, moved.reason) == ("aborted", reason)
    assert result.kv_blocks_held == (0,)


def test_what_has_moved_before_the_source_dies_is_safe():
    agents = [Mover(50, 1), Mover(None, 0)]
    result = run(make_trace([0.0], [40], [30]), failures=((0, 0.178),), router=FirstInstance(), agents=agents)
    # 17 tokens by 0.170; it decodes at the destination from 0.177 on.
    assert first(requests(result))["e2e_s"] == pytest.approx(0.177 + 13 * 0.010)


class SendOn:
    """Sends the queued request 1 to instance 1 at 0.050; keeps what it hears of deaths."""

    def __init__(self):
        self.heard = []

    def handle(self, stimulus, own, now_s):
        match stimulus:
            case Started():
                return (SetTimer(0.050, "now"),) if own.instance == 0 else ()
            case TimerFired():
                return (Migrate(1, 1, "rebalance"),)
            case PeerDied():
                self.heard.append((stimulus.instance, now_s))
        return ()


def test_a_queued_request_on_its_way_to_an_instance_that_dies_is_routed_anew():
    trace = make_trace([0.0, 0.001], [10, 10], [100, 3])
    result = run(
        trace,
        failures=((1, 0.0505),),
        router=FirstInstance(),
        agents=[SendOn(), SendOn(), SendOn()],
        instances=3,
        max_num_seqs=1,
    )
    moved, ended = next(iter(result.migrations)), requests(result)
    assert (moved.status, moved.reason) == (
        "aborted",
        "the destination has died",
    )
    assert ended["status"].tolist() == [0, 0]
    assert ended["last_instance"].tolist() == [0, 0], "where the router sends it"
    assert ended["migrations"].tolist() == [0, 0]


def test_the_living_hear_of_a_death_once_it_is_noticed():
    agents = [SendOn(), SendOn(), SendOn()]
    run(make_trace([0.0, 3.0], [10, 10], [1, 1]), failures=((1, 0.5), (2, 1.0)), agents=agents, instances=3)
    assert agents[0].heard == [(1, 1.5), (2, 2.0)]
    assert agents[1].heard == []
    assert agents[2].heard == []
