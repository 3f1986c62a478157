"""What L4's decisions cost, on the simulator's own views of busy instances. Run with `make bench`.

Aims: a routing decision in 20 µs at 16 instances and in 200 µs at 1,024; an agent's stimulus in 50 µs. Three quarters
of the instances form one stage, so that its agents have many peers.
"""

from __future__ import annotations

import pytest

from benchmarks.test_policies import CLUSTERS, catch
from l4sim.policies.agent import Crossed, Joined, MigrationEnded, Received, TimerFired
from l4sim.policies.l4.affinity import Affinity, Prices
from l4sim.policies.l4.agent import BidTime, L4Agent, RefineTime
from l4sim.policies.l4.balance import Decide
from l4sim.policies.l4.dispatch import Dispatch, ExpectedHits
from l4sim.policies.l4.messages import Ask, Bid, Boundary, Report, Slack
from l4sim.policies.l4.moving import Mover
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.l4.router import L4Router
from l4sim.policies.plan import Plan, Stage

PRICES = Prices(1e-5, 1e-10, 2e-5, 1e-8, 300.0)


def plan_for(instances):
    first = instances // 4
    lower, upper = tuple(range(first)), tuple(range(first, instances))
    return Plan((Stage(0, 500, lower), Stage(500, 131_072, upper)))


@pytest.fixture(scope="module", params=CLUSTERS)
def busy(request):
    """A request, and the views of busy instances."""
    _, arrival, views = catch(request.param, "least-outstanding")
    return arrival, list(views)


@pytest.mark.parametrize("follow_prefixes", [False, True])
def test_a_routing_decision(benchmark, busy, follow_prefixes):
    request, views = busy
    affinity = Affinity(PRICES, 16, 10**9) if follow_prefixes else None
    router = L4Router(plan_for(len(views)), affinity)
    benchmark.pedantic(router.route, (request, views), rounds=200, iterations=5, warmup_rounds=10)


@pytest.mark.parametrize("follow_prefixes", [False, True])
def test_a_dispatch_over_all_instances(benchmark, busy, follow_prefixes):
    request, views = busy
    router = Dispatch(plan_for(len(views)), ExpectedHits(16, 500_000) if follow_prefixes else None)
    benchmark.pedantic(router.route, (request, views), rounds=200, iterations=5, warmup_rounds=10)


def test_a_request_that_was_placed_for_its_prefix_begins_to_decode(benchmark, busy):
    _, views = busy
    agent, own = Mover(0, Ranges(plan_for(len(views))), PRICES), views[0]
    begun = own.decoding()[0]

    def setup():
        agent.handle(MigrationEnded(begun.request, 1, True, ""), own, 1.0)
        return (Crossed(begun._replace(cached_tokens=500)), own, 1.0), {}

    benchmark.pedantic(agent.handle, setup=setup, rounds=300, warmup_rounds=20)


@pytest.fixture
def member(busy):
    """The leader of the upper stage, with its view."""
    _, views = busy
    plan = plan_for(len(views))
    number = plan.stages[1].instances[0]
    return L4Agent(number, Ranges(plan), (2.0, 2.0)), views[number], len(views)


def stimulate(benchmark, member, *stimuli):
    """Time the last of these stimuli, each time on an agent that has just had the others."""
    (agent, own, _), (*before, timed) = member, stimuli

    def setup():
        for stimulus in before:
            agent.handle(stimulus, own, 1.0)
        return (timed, own, 1.0), {}

    benchmark.pedantic(agent.handle, setup=setup, rounds=300, warmup_rounds=20)


def test_a_request_outgrows_its_stage(benchmark, busy):
    _, views = busy
    plan = Plan((Stage(0, 500, (0,)), Stage(500, 131_072, tuple(range(1, len(views))))))
    agent, own = L4Agent(0, Ranges(plan), (2.0, 2.0)), views[0]
    grown = own.decoding()[0]
    outgrown = Crossed(grown._replace(context_tokens=500))

    def setup():
        agent.handle(MigrationEnded(grown.request, 1, True, ""), own, 1.0)
        return (outgrown, own, 1.0), {}

    assert agent.handle(outgrown, own, 1.0)
    benchmark.pedantic(agent.handle, setup=setup, rounds=300, warmup_rounds=20)


def test_an_ask(benchmark, member):
    stimulate(benchmark, member, Received(0, Ask(7, 2000)))


def test_time_to_bid(benchmark, member):
    _, own, count = member
    plan = plan_for(count)

    def setup():
        # Bids that nobody answers become rarer; a new agent makes one at once.
        return (L4Agent(own.instance, Ranges(plan), (2.0, 2.0)),), {}

    def bid(agent):
        return agent.handle(TimerFired(BidTime()), own, 1.0)

    assert len(benchmark.pedantic(bid, setup=setup, rounds=300, warmup_rounds=20)) > 2


def test_a_bid(benchmark, member):
    stimulate(benchmark, member, Received(0, Bid(1, 10.0**6, False)))


def test_a_decision_among_answers(benchmark, member):
    agent, own, _ = member
    rounds = iter(range(1, 10**6))

    def setup():
        for request in (*own.decoding(), *own.queued()):
            agent.handle(MigrationEnded(request.request, 0, False, ""), own, 1.0)
        agent.handle(TimerFired(BidTime()), own, 1.0)
        number = next(rounds)
        agent.handle(Received(0, Slack(number, 0.0)), own, 1.0)
        return (TimerFired(Decide(number)), own, 1.0), {}

    moved = benchmark.pedantic(agent.handle, setup=setup, rounds=300, warmup_rounds=20)
    assert moved


def test_time_to_refine(benchmark, member):
    _, _, count = member
    boundary, reports = (
        Boundary(0, 1, 510),
        [Received(peer, Report(3.0)) for peer in range(count // 4 + 1, count // 4 + 9)],
    )
    stimulate(benchmark, member, Received(0, boundary), *reports, TimerFired(RefineTime()))


def test_news_of_a_boundary(benchmark, member):
    versions = iter(range(1, 10**6))
    agent, own, _ = member

    def setup():
        return (Received(0, Boundary(0, next(versions), 510)), own, 1.0), {}

    benchmark.pedantic(agent.handle, setup=setup, rounds=300, warmup_rounds=20)


def test_a_request_joins(benchmark, member):
    stimulate(benchmark, member, Joined(7))
