"""Each invariant is noticed when it is broken, and named by its number."""

from __future__ import annotations

import pytest

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.engine.invariants import check_engine
from l4sim.engine.request import Request
from l4sim.engine.vllm.engine import VLLMEngine
from l4sim.policies.policy import Policy
from l4sim.policies.routers import RoundRobin
from l4sim.simulator import InstanceSpec, Rules, simulate_fleet
from l4sim.specs.placement import Placement
from tests.simulator.conftest import make_trace

CONFIG = EngineConfig(kv_blocks=20, max_model_len=200, max_num_seqs=4, max_num_batched_tokens=64, block_tokens=4)


def serving(*, prefix_caching=False):
    """An engine with two requests that decode and one that waits."""
    config = EngineConfig(
        kv_blocks=20,
        max_model_len=200,
        max_num_seqs=2,
        max_num_batched_tokens=64,
        block_tokens=4,
        prefix_caching=prefix_caching,
    )
    engine = VLLMEngine(config, max_iterations=1)
    for index in range(3):
        engine.add(
            Request(index, 0.0, 6, 5, block_keys=(range(9 * index, 9 * index + 2),) if prefix_caching else ()), 0.0
        )
    for now_s in (0.0, 1.0):
        step = engine.plan(now_s)
        engine.commit(step, now_s + 0.5)
    check_engine(0, engine)
    return engine


def break_pool(engine):
    engine.pool.free += 100


def break_line(engine):
    engine.pool._front += 1


def break_batch(engine):
    engine.decoding._base_sum += 1


def break_queue(engine):
    engine.waiting_tokens += 1


def break_places(engine):
    engine._incoming += 5


def break_blocks(engine):
    engine.pool.free = engine.pool.total


@pytest.mark.parametrize(
    ("number", "fault", "prefix_caching"),
    [
        ("E1", break_pool, False),
        ("E2", break_line, True),
        ("E3", break_batch, False),
        ("E4", break_queue, False),
        ("E5", break_places, False),
        ("E6", break_blocks, False),
    ],
)
def test_an_engine_s_invariant_that_is_broken_is_named(number, fault, prefix_caching):
    engine = serving(prefix_caching=prefix_caching)
    fault(engine)
    with pytest.raises(AssertionError, match=f"instance 3: .*{number}: "):
        check_engine(3, engine)


class Losing(VLLMEngine):
    """Drops every third request that comes."""

    def add(self, request, now_s):
        if request.index % 3 != 2:
            super().add(request, now_s)


def replay(make_engine, *, validate):
    trace = make_trace([0.0, 1.0, 2.0], [10] * 3, [10] * 3)
    spec = InstanceSpec(CONFIG, AffineCost(base_s=0.01), kv_bytes_per_token=1, make_engine=make_engine)
    return simulate_fleet(trace, Policy(RoundRobin()), [spec] * 2, Placement(2), rules=Rules(validate=validate))


def test_a_request_that_is_nowhere_is_missed_at_once():
    with pytest.raises(AssertionError, match="R2: 1 requests are in flight: 0 on instances, 0 on the way, 0 lost"):
        replay(Losing, validate=True)


def test_without_checks_it_is_missed_at_the_end():
    with pytest.raises(AssertionError, match="1 requests never ended"):
        replay(Losing, validate=False)


def test_migrations_that_an_instance_counts_wrong_are_noticed():
    class Miscounting(RoundRobin):
        def route(self, request, instances):
            instances[0]._server.transfers += 1
            return super().route(request, instances)

    spec = InstanceSpec(CONFIG, AffineCost(base_s=0.01), kv_bytes_per_token=1)
    with pytest.raises(AssertionError, match="R3: instance 0 counts 1 migrations, it takes part in 0"):
        simulate_fleet(
            make_trace([0.0], [10], [10]), Policy(Miscounting()), [spec], Placement(1), rules=Rules(validate=True)
        )
