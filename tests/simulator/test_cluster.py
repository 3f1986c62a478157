"""Arrivals, sessions, prefixes, messages and timers."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.policies.agent import COORDINATOR, FRONT_END, Received, Send, SetTimer, Started, TimerFired
from l4sim.policies.routers import RoundRobin
from l4sim.simulator import Rules, simulate
from l4sim.simulator.transport import Network
from l4sim.specs.placement import Placement
from l4sim.workload.synth.sessions import Sessions, converse
from l4sim.workload.trace import PrefixBlocks
from tests.simulator.conftest import make_trace, requests, texts

COST = AffineCost(base_s=0.010)


def run(trace, *, router=None, instances=2, agents=(), coordinator=None, rules=None, **engine):
    options = {"kv_blocks": 100, "max_model_len": 100, "max_num_seqs": 8, "max_num_batched_tokens": 64} | engine
    return simulate(
        trace,
        router=router or RoundRobin(),
        agents=agents,
        coordinator=coordinator,
        cluster=Placement(instances),
        engine=EngineConfig(**options),
        cost=COST,
        kv_bytes_per_token=1,
        rules=rules,
    )


def test_too_long_a_request_is_rejected_with_its_reason_and_reaches_no_instance():
    result = run(make_trace([0.0, 0.1], [90, 10], [20, 2]))
    ended = requests(result)
    assert ended["status"].tolist() == [1, 0]
    assert texts(result.requests, "reason")[0] == "prompt and output exceed max_model_len 100"
    assert ended["first_instance"].tolist() == [-1, 0]
    assert np.isnan(ended["e2e_s"][0])
    assert np.isnan(ended["ttft_s"][0])


def test_a_request_larger_than_the_cache_is_rejected_not_hung():
    result = run(make_trace([0.0], [50], [40]), kv_blocks=5)
    assert texts(result.requests, "reason")[0] == "prompt and output need more than the instance's 5 KV blocks"


def test_a_session_goes_on_after_a_rejected_turn():
    trace = make_trace([1.0, np.nan], [200, 10], [5, 5], after=[-1, 0], delay_s=[np.nan, 2.5])
    ended = requests(run(trace))
    assert ended["status"].tolist() == [1, 0]
    assert ended["arrival_s"].tolist() == [1.0, 3.5]


def test_requests_that_share_a_prefix_find_it_cached():
    prefix = PrefixBlocks(np.array([1, 2, 3, 1, 2, 9]), np.array([0, 3, 6]), block_tokens=16)
    trace = make_trace([0.0, 1.0], [40, 40], [2, 2], prefix=prefix)
    # Two full blocks of 16 are shared; the third id stands for a part of a block.
    assert requests(run(trace, instances=1))["cached_tokens"].tolist() == [0, 32]
    assert requests(run(trace, instances=2))["cached_tokens"].tolist() == [0, 0]
    assert requests(run(trace, instances=1, prefix_caching=False))["cached_tokens"].tolist() == [0, 0]


def test_kv_blocks_may_be_larger_than_prefix_blocks():
    prefix = PrefixBlocks(np.array([1, 2, 3, 4, 1, 2, 3, 8]), np.array([0, 4, 8]), block_tokens=8)
    trace = make_trace([0.0, 1.0], [32, 32], [2, 2], prefix=prefix)
    # Ids 1, 2, 3 agree: 24 tokens, of which one block of 16 is whole.
    assert requests(run(trace, instances=1, block_tokens=16))["cached_tokens"].tolist() == [0, 16]


def test_kv_blocks_and_prefix_blocks_need_not_divide_one_another():
    prefix = PrefixBlocks(np.array([1, 2, 1, 3]), np.array([0, 2, 4]), block_tokens=24)
    trace = make_trace([0.0, 1.0], [48, 48], [2, 2], prefix=prefix)
    # 24 tokens agree, of which one block of 16 is whole.
    assert requests(run(trace, instances=1, block_tokens=16))["cached_tokens"].tolist() == [0, 16]


def test_a_next_turn_finds_the_system_prompt_and_the_answers_before_it():
    sessions = Sessions(2.0, 1.0, system_tokens=40, block_tokens=512)
    users, answers = np.array([20, 20, 30]), np.array([50, 9, 9])
    trace = converse("two", sessions, np.array([0.0, 100.0]), np.array([2, 1]), users, answers, np.full(3, 1.0))
    # The second turn repeats 60 tokens of prompt and 50 of answer, whose last has no KV; the other session, 40.
    found = requests(run(trace, instances=1, max_model_len=1000))["cached_tokens"]
    assert found.tolist() == [0, 96, 32]


class Recorder:
    """Keeps what it is told, and answers its start with some instructions."""

    def __init__(self, *first):
        self.first, self.heard = first, []

    def handle(self, stimulus, *own_and_now):
        self.heard.append((stimulus, own_and_now[-1]))
        return self.first if stimulus == Started() else ()


class ListeningRouter(RoundRobin):
    def __init__(self):
        super().__init__()
        self.heard = []

    def receive(self, sender, message, now_s):
        self.heard.append((sender, message, now_s))


def test_messages_take_their_time_whoever_they_are_for():
    router, coordinator = ListeningRouter(), Recorder()
    agents = [Recorder(Send(1, "a"), Send(COORDINATOR, "b"), Send(FRONT_END, "c")), Recorder()]
    run(
        make_trace([0.0, 1.0], [10, 10], [1, 1]),
        router=router,
        agents=agents,
        coordinator=coordinator,
        rules=Rules(network=Network(latency_s=0.25)),
    )
    assert agents[1].heard == [(Started(), 0.0), (Received(0, "a"), 0.25)]
    assert coordinator.heard == [(Started(), 0.0), (Received(0, "b"), 0.25)]
    assert router.heard == [(0, "c", 0.25)]


def test_a_message_takes_half_a_millisecond_unless_told_otherwise():
    agents = [Recorder(Send(1, "a")), Recorder()]
    run(make_trace([0.0, 1.0], [10, 10], [1, 1]), agents=agents)
    assert agents[1].heard == [(Started(), 0.0), (Received(0, "a"), 0.0005)]


def test_timers_fire_after_their_delay_and_do_not_keep_a_finished_run_alive():
    agents = [Recorder(SetTimer(0.4, "soon"), SetTimer(1e9, "never")), Recorder()]
    result = run(make_trace([0.0, 1.0], [10, 10], [1, 1]), agents=agents)
    assert agents[0].heard == [(Started(), 0.0), (TimerFired("soon"), 0.4)]
    assert result.end_s == pytest.approx(1.010)


@pytest.mark.slow
def test_progress_is_told_now_and_then():
    told = []
    simulate(
        make_trace(np.linspace(0, 1, 1200), [10] * 1200, [2] * 1200),
        router=RoundRobin(),
        cluster=Placement(2),
        engine=EngineConfig(kv_blocks=1000, max_model_len=100),
        cost=COST,
        kv_bytes_per_token=1,
        progress=lambda time_s, ended: told.append((time_s, ended)),
    )
    assert [ended for _, ended in told] == [512, 1024]
    assert told[0][0] < told[1][0]
