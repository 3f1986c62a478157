"""Small replays worked by hand: when each iteration begins and what it computes."""

from __future__ import annotations

import pytest

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.policies.routers import RoundRobin
from l4sim.simulator import Rules, simulate
from l4sim.specs.placement import Placement
from tests.simulator.conftest import iterations, make_trace, requests

# Every iteration takes 10 ms, and a prompt token 1 ms on top.
COST = AffineCost(base_s=0.010, per_prefill_token_s=0.001)
# A decoding iteration takes 10 ms and 1 ms per hundred tokens of context.
GROWING = AffineCost(base_s=0.010, per_context_token_s=1e-5)


def run(trace, cost=COST, **engine):
    options = {"kv_blocks": 100, "max_model_len": 500, "max_num_seqs": 8, "max_num_batched_tokens": 64} | engine
    return simulate(
        trace,
        router=RoundRobin(),
        cluster=Placement(1),
        engine=EngineConfig(**options),
        cost=cost,
        kv_bytes_per_token=1,
        rules=Rules(),
    )


def test_one_request_alone():
    ended = requests(run(make_trace([2.0], [10], [4])))
    # Prompt: 10 ms + 10 tokens at 1 ms. Then three more tokens, 10 ms each.
    assert ended["ttft_s"][0] == pytest.approx(0.020)
    assert ended["e2e_s"][0] == pytest.approx(0.050)
    assert ended["tpot_s"][0] == pytest.approx(0.010)
    assert ended["normalized_latency_s"][0] == pytest.approx(0.050 / 4)


def test_quiet_iterations_are_one_segment():
    segments = iterations(run(make_trace([0.0], [10], [101])))
    assert segments["iterations"].tolist() == [1, 100]
    assert segments["prefill_tokens"].tolist() == [10, 0]


def test_a_growing_context_makes_a_segment_s_iterations_grow_with_it():
    ended = requests(run(make_trace([0.0], [100], [51]), GROWING))
    # The first token costs 10 ms per chunk of 64 prompt tokens; then contexts 101 ... 150 at 10 µs a token.
    assert ended["ttft_s"][0] == pytest.approx(0.020)
    assert ended["e2e_s"][0] == pytest.approx(0.020 + 50 * 0.010 + sum(range(101, 151)) * 1e-5)
    assert ended["max_itl_s"][0] == pytest.approx(0.010 + 150e-5)


@pytest.mark.parametrize(
    ("async_scheduling", "first_token_at_s"),
    [
        # The newcomer arrives in the iteration from 0.040 to 0.050. An engine that plans in between has it in the one
        # from 0.050 to 0.065 (10 ms and 5 prompt tokens); one that plans ahead has planned that one already.
        (False, 0.065),
        (True, 0.075),
    ],
)
def test_an_arrival_cuts_a_segment_where_the_engine_can_first_feel_it(async_scheduling, first_token_at_s):
    trace = make_trace([0.0, 0.043], [10, 5], [50, 2])
    ended = requests(run(trace, async_scheduling=async_scheduling))
    assert ended["arrival_s"][1] + ended["ttft_s"][1] == pytest.approx(first_token_at_s)
    # The long request pays for it with one iteration of 15 ms.
    assert ended["max_itl_s"][0] == pytest.approx(0.015)


def test_arrivals_behind_a_blocked_head_cut_nothing():
    # One place only: whoever comes while the first decodes cannot change what runs.
    trace = make_trace([0.0, 0.05, 0.06, 0.07], [10, 5, 5, 5], [30, 1, 1, 1])
    segments = iterations(run(trace, max_num_seqs=1, async_scheduling=False))
    first, *_ = segments["decode_requests"].nonzero()[0]
    # The first of them finds an empty queue and cuts the segment once; the others do not.
    assert segments["iterations"][first : first + 2].sum() == 29
    assert segments["decode_requests"].nonzero()[0].tolist() == [first, first + 1]


def test_an_idle_instance_starts_at_once():
    ended = requests(run(make_trace([0.0, 5.0], [10, 10], [1, 1])))
    assert ended["queue_s"].tolist() == [0.0, 0.0]
    assert ended["ttft_s"] == pytest.approx([0.020, 0.020])
