import numpy as np
import pytest

from l4sim.cost.affine import AffineCost
from l4sim.policies.l4.demand import measure_demand
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.qoe import Capacity, stage_table
from l4sim.policies.l4.reuse import PrefixUses, measure_reuse

# 10 ms an iteration, 0.1 ms a sequence, 1 ms a prompt token.
COST = AffineCost(base_s=10e-3, per_sequence_s=1e-4, per_prefill_token_s=1e-3)
EDGES = np.array([0, 128, 4096])
ALL = ((0, 2),)
ROOMY = Capacity(kv_tokens=10**6, max_num_seqs=64, max_num_batched_tokens=100)


def demand_of(prompt, output, rate):
    return measure_demand(np.array([prompt]), np.array([output]), np.array([float(rate)]), EDGES)


def test_a_stage_by_hand():
    # 2 requests/s of 100 prompt and 501 output tokens on 2 instances. A prompt takes 110 ms, 10.1 ms of which any
    # iteration takes: D = 2 - 2 x 0.0999 = 1.8002 s/s are left to decode 1000 tokens/s. A request finds itself in a
    # batch that is larger than the mean one by 1/√2.
    table = stage_table(demand_of(100, 501, 2), COST, ROOMY, ALL, instances=2)
    batch = 1000 * (10e-3 + 1e-4 / 2**0.5) / (1.8002 - 1000 * 1e-4)
    tau_s = 10e-3 + 1e-4 * (batch + 1 / 2**0.5)
    assert table.batch[0, 1] == pytest.approx(batch)
    assert table.tau_s[0, 1] == pytest.approx(tau_s)
    assert table.tpot_s[0, 1] == pytest.approx(2 * batch / 1000)
    assert table.mixed_s[0, 1] == pytest.approx(tau_s - 10.1e-3)
    # Prompts take half of what there is to decode with; one instance has 0.8002 s/s for 64 x 100 / 16.4 tokens/s.
    service_s = 99.9e-3 + tau_s
    fullest = (2 * 99.9e-3 + 1000 * (10e-3 + 64e-4) / 64) / 2
    assert table.load[0, 1] == pytest.approx(max(fullest, 2 * service_s / 2))
    # All service times are equal: a wait of half of M/M/m's, 15 % as if the two had queues of their own.
    load = 2 * service_s / 2
    one_queue_s = load ** (6**0.5 - 1) / (2 * (1 - load)) * service_s / 2
    own_queue_s = load / (1 - load) * service_s / 2
    assert table.wait_s[0, 1] == pytest.approx(0.85 * one_queue_s + 0.15 * own_queue_s + 1.5 * tau_s, rel=1e-3)


def test_ttft_is_the_wait_and_the_prefill_among_decodes():
    table = stage_table(demand_of(100, 501, 2), COST, ROOMY, ALL, instances=2)
    ttft_s = table.ttft_sums(np.array([1.0, 0.0]))
    assert ttft_s == pytest.approx(table.wait_s + 110e-3 + table.mixed_s)


def test_more_instances_are_less_loaded_and_faster():
    table = stage_table(demand_of(100, 501, 2), COST, ROOMY, ALL, instances=8)
    costs = Objective().costs(table, demand_of(100, 501, 2))[0]
    for falling in (table.load[0], table.batch[0], table.tpot_s[0], table.wait_s[0], costs):
        assert (np.diff(falling) < 0).all()


def test_a_stage_that_cannot_decode_its_load_is_overloaded_by_the_ratio():
    # 64 requests in 16.4 ms: at most 3902 tokens/s.
    demand = demand_of(1, 2001, 4)
    table = stage_table(demand, COST, Capacity(10**6, 64, 100), ALL, instances=4)
    assert table.load[0] == pytest.approx(8000 / (64 / 16.4e-3) / np.arange(1, 5), rel=0.01)
    # Backlog grows with the overload: half of 10 minutes of it.
    assert table.wait_s[0, 0] == pytest.approx((table.load[0, 0] - 0.95) * 300, rel=0.1)


def test_a_stage_whose_prompts_come_too_fast_is_overloaded():
    table = stage_table(demand_of(100, 1, 20), COST, ROOMY, ALL, instances=3)
    assert table.load[0, 0] == pytest.approx(20 * 0.11, rel=0.01)
    assert table.load[0, 1] > 1 > table.load[0, 2]


def test_the_kv_cache_bounds_the_batch():
    # Contexts of 600 tokens on average, 8 requests in flight: 4800 tokens.
    demand = demand_of(100, 1000, 0.5)
    roomy = stage_table(demand, COST, ROOMY, ALL, instances=1)
    assert roomy.batch[0, 0] == pytest.approx(5.6, rel=0.05)
    tight = stage_table(demand, COST, Capacity(600 * 5, 64, 100), ALL, instances=1)
    assert tight.load[0, 0] >= 1
    nearly_full = stage_table(demand, COST, Capacity(600 * 6, 64, 100), ALL, instances=1)
    assert nearly_full.load[0, 0] < 1
    assert nearly_full.wait_s[0, 0] > 10 * roomy.wait_s[0, 0]


def test_what_the_prefix_cache_holds_makes_room():
    ints, rate = np.array, np.array([2.0])
    cached = measure_demand(ints([100]), ints([501]), rate, EDGES, ints([10]))
    table = stage_table(cached, COST, ROOMY, ALL, instances=1)
    assert table.load[0, 0] < stage_table(demand_of(100, 501, 2), COST, ROOMY, ALL, instances=1).load[0, 0]
    assert table.prefills.seconds[:, 0] == pytest.approx([110e-3, 20e-3])


def test_prompts_that_follow_their_prefix_queue_as_if_instances_were_alone():
    prompts, outputs, rates = np.array([100, 100]), np.array([300, 300]), np.array([1.0, 1.0])
    uses = PrefixUses(np.array([0, 60]), np.array([-1, 0]), np.array([0, 1]), np.zeros(2))
    drawn, followed = (
        stage_table(
            measure_demand(
                prompts,
                outputs,
                rates,
                EDGES,
                prompts - uses.tokens,
                reuse=measure_reuse(uses, np.array([0.0, 5.0]), prompts, rates, EDGES, followed=follows),
            ),
            COST,
            ROOMY,
            ALL,
            instances=4,
        )
        for follows in (False, True)
    )
    # One of four instances has it, or the one that the prompt is sent to.
    assert drawn.cached[0] == pytest.approx(1 / np.arange(1, 5))
    assert followed.cached[0] == pytest.approx(1)
    assert followed.load[0, 3] < drawn.load[0, 3]
    # 30 % of all prompt tokens follow: less work, and yet a longer wait.
    assert followed.wait_s[0, 3] > drawn.wait_s[0, 3]


def test_an_idle_range_costs_nothing():
    table = stage_table(demand_of(10, 20, 1), COST, ROOMY, ((1, 2),), instances=2)
    assert (table.load == 0).all()
    assert (Objective().costs(table, demand_of(10, 20, 1)) == 0).all()
