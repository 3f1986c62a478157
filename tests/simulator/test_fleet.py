"""Fleets that change while they serve, and fleets of unlike instances, worked by hand: an iteration takes 10 ms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.policies.agent import Draining, InstanceUp, Left, Migrate, SetTimer, Started, TimerFired
from l4sim.policies.policy import Policy
from l4sim.policies.routers import LeastOutstanding
from l4sim.policies.views import SOLE_KIND
from l4sim.simulator import InstanceSpec, Join, simulate_fleet
from l4sim.specs.events import Drain, Fail
from l4sim.specs.placement import Placement
from tests.simulator.conftest import make_trace, requests, texts

ENGINE = EngineConfig(kv_blocks=100, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=64)
PLAIN = InstanceSpec(ENGINE, AffineCost(base_s=0.010), kv_bytes_per_token=1)


def run(trace, instances=(PLAIN, PLAIN), *, router=None, agents=(), agent_for=None, placed=4, events=()):
    policy = Policy(router or LeastOutstanding(), tuple(agents), agent_for=agent_for)
    return simulate_fleet(trace, policy, instances, Placement(placed), events=events)


class Latest:
    """Routes everything to the instance with the highest number, and keeps which instances it saw."""

    def __init__(self):
        self.seen = []

    def route(self, request, instances):
        self.seen.append([view.instance for view in instances])
        return len(instances) - 1


class Hearing:
    """An agent that keeps what it hears."""

    def __init__(self, number):
        self.number, self.heard = number, []

    def handle(self, stimulus, own, now_s):
        self.heard.append((now_s, stimulus))
        return ()


class Evacuating(Hearing):
    """Moves what it has to another instance when it drains."""

    def __init__(self, number, to):
        super().__init__(number)
        self.to = to

    def handle(self, stimulus, own, now_s):
        # Stimuli are tuples: those of another kind may be equal to it.
        if isinstance(stimulus, Draining) and stimulus.instance == self.number:
            return [Migrate(request.request, self.to, "drain") for request in own.decoding()]
        return super().handle(stimulus, own, now_s)


def test_an_instance_that_joins_serves_from_then_on():
    trace = make_trace([0.0, 59.0, 61.0], [10, 10, 10], [5, 5, 5])
    router = Latest()
    result = run(trace, router=router, events=[Join(PLAIN, 60.0)])
    assert requests(result)["first_instance"].tolist() == [1, 1, 2]
    assert router.seen == [[0, 1], [0, 1], [0, 1, 2]]
    assert result.instances == 3
    assert result.changes == ((60.0, 2, "joined", 0),)


def test_its_agent_starts_and_then_everybody_hears_of_it():
    agents = [Hearing(0), Hearing(1)]
    joined = []

    def agent_for(number):
        joined.append(Hearing(number))
        return joined[-1]

    run(make_trace([0.0, 61.0], [10] * 2, [5] * 2), agents=agents, agent_for=agent_for, events=[Join(PLAIN, 60.0)])
    assert joined[0].heard == [(60.0, Started()), (60.0, InstanceUp(2))]
    assert [agent.heard[-1] for agent in agents] == [(60.0, InstanceUp(2))] * 2


def test_a_draining_instance_serves_what_it_has_and_takes_nothing_new():
    trace = make_trace([0.0, 0.06, 0.5], [10, 10, 10], [30, 10, 10])
    agents = [Hearing(0), Hearing(1)]
    router = Latest()
    result = run(trace, router=router, agents=agents, events=[Drain(1, 0.05)])
    ended = requests(result)
    assert ended["status"].tolist() == [0, 0, 0]
    assert ended["last_instance"].tolist() == [1, 0, 0]
    assert router.seen == [[0, 1], [0], [0]]
    # Its only request ends with its 30th iteration.
    assert [change[1:] for change in result.changes] == [(1, "draining", 1), (1, "left", 0)]
    assert [change.time_s for change in result.changes] == pytest.approx([0.05, 0.300])
    assert [stimulus for _, stimulus in agents[0].heard] == [Started(), Draining(1), Left(1)]


def test_a_draining_instance_may_hand_over_what_it_has_and_leaves_then():
    trace = make_trace([0.0, 0.5], [10, 10], [30, 10])
    result = run(trace, router=Latest(), agents=[Hearing(0), Evacuating(1, to=0)], events=[Drain(1, 0.055)])
    moved = next(iter(result.migrations))
    assert (moved.kind, moved.source, moved.destination, moved.status) == ("drain", 1, 0, "done")
    ended = requests(result)
    assert ended["last_instance"].tolist() == [0, 0]
    assert ended["preemptions"].tolist() == [0, 0]
    assert result.changes[-1].change == "left"
    assert result.changes[-1].time_s == pytest.approx(moved.end_s)


def test_nothing_migrates_to_a_draining_instance():
    class Stubborn(Evacuating):
        def handle(self, stimulus, own, now_s):
            if isinstance(stimulus, Draining):
                return [Migrate(request.request, 0, "drain") for request in own.decoding()]
            return super().handle(stimulus, own, now_s)

    trace = make_trace([0.0, 0.001], [10, 10], [30, 30])
    result = run(trace, agents=[Hearing(0), Stubborn(1, to=0)], events=[Drain(0, 0.055)])
    assert texts(result.migrations, "reason") == ["the destination is draining"]


def test_an_empty_instance_leaves_at_once():
    result = run(make_trace([0.0, 1.0], [10, 10], [5, 5]), router=LeastOutstanding(), events=[Drain(1, 0.5)])
    assert result.changes == ((0.5, 1, "draining", 0), (0.5, 1, "left", 0))


def test_one_that_dies_while_it_drains_loses_nothing_either():
    trace = make_trace([0.0, 2.0], [10, 10], [30, 10])
    result = run(trace, router=Latest(), events=[Drain(1, 0.05), Fail(1, 0.1)])
    assert requests(result)["status"].tolist() == [0, 0]
    assert [change.change for change in result.changes] == ["draining", "died"]


def test_each_instance_goes_by_its_own_cost_and_its_own_blocks():
    slow = InstanceSpec(
        EngineConfig(kv_blocks=3, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=64),
        AffineCost(base_s=0.020),
        kv_bytes_per_token=1,
        kind=SOLE_KIND._replace(group="slow", relative_speed=0.5),
    )
    seen = {}

    class Turns(LeastOutstanding):
        def route(self, request, instances):
            seen.update({view.instance: (view.kind.relative_speed, view.kv_blocks_total) for view in instances})
            return super().route(request, instances)

    result = run(make_trace([0.0, 0.0], [10, 10], [20, 20]), (PLAIN, slow), router=Turns())
    assert requests(result)["e2e_s"] == pytest.approx([20 * 0.010, 20 * 0.020])
    assert seen == {0: (1.0, 100), 1: (0.5, 3)}


def test_a_request_goes_only_where_it_can_be_served():
    small = InstanceSpec(
        EngineConfig(kv_blocks=3, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=64),
        PLAIN.cost,
        kv_bytes_per_token=1,
        kind=SOLE_KIND._replace(group="small"),
    )
    # 60 tokens need 4 blocks: the last instance, which the router prefers, has 3.
    result = run(make_trace([0.0, 0.0, 0.0], [50, 10, 2000], [10, 10, 10]), (PLAIN, small), router=Latest())
    assert requests(result)["last_instance"].tolist() == [0, 1, -1]
    assert requests(result)["status"].tolist() == [0, 0, 1]


def test_a_request_does_not_migrate_where_it_could_never_be_served():
    # It needs 4 blocks in the end, and 2 when it wants to go where there are 3.
    small = InstanceSpec(
        EngineConfig(kv_blocks=3, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=64),
        PLAIN.cost,
        kv_bytes_per_token=1,
        kind=SOLE_KIND._replace(group="small"),
    )
    agents = [Evacuating(0, to=1), Hearing(1)]
    result = run(make_trace([0.0], [10], [50]), (PLAIN, small), agents=agents, events=[Drain(0, 0.055)])
    assert texts(result.migrations, "reason") == ["the destination could never hold the whole request"]
    assert requests(result)["last_instance"].tolist() == [0]


def test_nor_does_one_that_waits():
    small = InstanceSpec(
        EngineConfig(kv_blocks=3, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=64),
        PLAIN.cost,
        kv_bytes_per_token=1,
        kind=SOLE_KIND._replace(group="small"),
    )

    class Forwarding(Hearing):
        def handle(self, stimulus, own, now_s):
            if isinstance(stimulus, TimerFired):
                return [Migrate(request.request, 1, "rebalance") for request in own.queued()]
            return (SetTimer(0.055, "look"),) if isinstance(stimulus, Started) else ()

    alone = InstanceSpec(replace(ENGINE, max_num_seqs=1), PLAIN.cost, kv_bytes_per_token=1)
    trace = make_trace([0.0, 0.01], [10, 10], [50, 50])
    result = run(trace, (alone, small), agents=[Forwarding(0), Hearing(1)])
    assert texts(result.migrations, "reason") == ["the destination could never hold the whole request"]
    assert requests(result)["status"].tolist() == [0, 0]
    assert requests(result)["last_instance"].tolist() == [0, 0]
