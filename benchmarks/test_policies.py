"""What one decision costs, on the simulator's own views of busy instances. Run with `make bench`.

Aims: a routing decision in 20 µs at 16 instances and in 200 µs at 1,024; an agent's stimulus in 50 µs. The clusters are
caught in mid-run, with 100 requests outstanding on each of 16 instances or 2 on each of 1,024.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.experiment import Options, resolve
from l4sim.experiment.planning import setting_for
from l4sim.policies.agent import COORDINATOR, MigrationEnded, Received, TimerFired
from l4sim.policies.registry import POLICIES, build_policy
from l4sim.policies.rivals.llumnix import LlumnixAgent, LlumnixCoordinator, MoveOne, Report
from l4sim.simulator import simulate
from l4sim.workload.trace import PrefixBlocks, Trace

ROUTERS = [name for name in POLICIES if POLICIES[name].kind != "l4"]
CLUSTERS = {16: 100, 1024: 2}
PREFIX_IDS = 60


class CaughtError(Exception):
    """The instances in mid-run."""

    def __init__(self, request, instances):
        super().__init__()
        self.request = request
        self.instances = instances


class StopAtTheLast:
    """A router that stops the simulation at the last request."""

    def __init__(self, router, last):
        self.router = router
        self.last = last

    def route(self, request, instances):
        if request.request == self.last:
            raise CaughtError(request, instances)
        return self.router.route(request, instances)

    def __getattr__(self, name):
        """What else the router may hear."""
        return getattr(self.router, name)


def long_answers(count):
    """Requests within 2 s that nobody has finished by then, prompts of some 1,000 tokens with every tenth shared."""
    rng = np.random.default_rng(0)
    prompt = rng.integers(16 * PREFIX_IDS, 2000, count)
    ids = np.arange(count * PREFIX_IDS)
    ids[: PREFIX_IDS * (count // 10)] = np.tile(np.arange(PREFIX_IDS), count // 10)
    nothing = np.full(count, np.nan)
    return Trace(
        "long answers",
        tuple(map(str, range(count))),
        np.sort(rng.uniform(0, 2, count)),
        prompt,
        rng.integers(2000, 4000, count),
        np.full(count, -1),
        np.full(count, -1),
        nothing,
        PrefixBlocks(ids, PREFIX_IDS * np.arange(count + 1), 16),
    )


def catch(instances, policy):
    """Return the policy's router, which has routed all requests but one; that one; and the instances it would see."""
    trace = long_answers(instances * CLUSTERS[instances])
    setup = resolve(Options(instances=instances, cost_model="affine"))
    router = build_policy(
        policy,
        replace(setting_for(trace, setup), sample=lambda: trace),
    ).router
    try:
        simulate(
            trace,
            router=StopAtTheLast(router, len(trace) - 1),
            cluster=setup.cluster,
            engine=setup.engine,
            cost=setup.cost,
            kv_bytes_per_token=setup.model.kv_bytes_per_token,
        )
    except CaughtError as caught:
        return router, caught.request, caught.instances
    raise AssertionError("the simulation ran to its end")


@pytest.mark.parametrize("instances", CLUSTERS)
@pytest.mark.parametrize("policy", ROUTERS)
def test_a_routing_decision(benchmark, policy, instances):
    router, request, views = catch(instances, policy)
    benchmark.pedantic(router.route, (request, views), rounds=200, iterations=5, warmup_rounds=10)


@pytest.fixture(scope="module")
def busy():
    """The view of an instance that decodes a hundred requests."""
    _, _, views = catch(16, "least-outstanding")
    view = views[3]
    assert len(view.decoding()) > 80
    return view


def test_a_report_of_a_llumnix_agent(benchmark, busy):
    agent = LlumnixAgent(0)
    benchmark(agent.handle, TimerFired("report"), busy, 1.0)


def test_an_order_to_a_llumnix_agent(benchmark, busy):
    agent = LlumnixAgent(0)

    def order_and_end():
        (migrate,) = agent.handle(Received(COORDINATOR, MoveOne(5)), busy, 1.0)
        agent.handle(MigrationEnded(migrate.request, 5, True, ""), busy, 1.0)

    benchmark(order_and_end)


@pytest.mark.parametrize("instances", CLUSTERS)
def test_a_round_of_the_llumnix_coordinator(benchmark, instances):
    rng = np.random.default_rng(0)
    reports = [Report(float(steps), steps + 1.0, steps - 1.0, None) for steps in rng.integers(-5, 50, instances)]

    def setup():
        coordinator = LlumnixCoordinator()
        for sender, report in enumerate(reports):
            coordinator.handle(Received(sender, report), 0.05)
        return (coordinator,), {}

    benchmark.pedantic(lambda coordinator: coordinator.handle(TimerFired("round"), 0.06), setup=setup, rounds=100)
