"""Routers for which there are no recorded decisions, by their rules; and what recordings of others cannot show."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from l4sim.policies.rivals import smg
from l4sim.policies.rivals.aibrix import AIBrix
from l4sim.policies.rivals.dynamo import Dynamo
from l4sim.policies.rivals.least_harm import LeastHarmPrefix
from l4sim.policies.rivals.llm_d import LLMD, range_score
from l4sim.policies.rivals.preble import Preble
from l4sim.policies.rivals.production_stack import PrefixAware
from l4sim.policies.rivals.ray_serve import RayServe
from l4sim.policies.rivals.sglang import PowerOfTwoTokens
from l4sim.policies.rivals.vllm_dp import VLLM019, VLLM032
from l4sim.policies.routers import HOLD
from tests.policies.conftest import View, arrival, views

# vLLM's data-parallel balancer.


def test_vllm_0_19_counts_a_waiting_request_four_times_and_what_it_sent_itself_as_waiting():
    router = VLLM019(3, 0, api_servers=1)
    instances = [View(0, running=2, waiting=1), View(1, running=5), View(2, running=1, waiting=1)]
    # Scores 6, 5 and 5; then 9 for the one that was chosen, and so on.
    assert [router.route(arrival(request=n), instances) for n in range(4)] == [1, 2, 0, 1]
    router.published(0.1)
    assert router.route(arrival(request=4), instances) == 1, "published counts have it all"


def test_vllm_0_32_goes_by_the_larger_of_what_it_knows_itself_and_what_was_published():
    router = VLLM032(2, 0, api_servers=1)
    assert [router.route(arrival(request=n), views(0, 2)) for n in range(3)] == [0, 0, 0], "the scan begins elsewhere"
    router.published(0.1)
    assert router.route(arrival(request=3), views(0, 2)) == 1, "three of its own in flight there, whatever is published"
    for request in range(3):
        router.ended(request, 0.2)
    router.published(0.3)
    assert router.route(arrival(request=4), views(0, 2)) == 0


def test_vllm_0_32_weighs_a_queue_more_where_kv_is_short():
    router = VLLM032(2, 0, api_servers=1)
    # 4 waiting at full KV use: 4 + 6 x 4 x 0.5 = 16, against 10 running.
    full = View(0, waiting=4, kv_blocks_free=0)
    assert router.route(arrival(), [full, View(1, running=10)]) == 1
    assert VLLM032(2, 0, api_servers=1).route(arrival(), [replace(full, kv_blocks_free=500), View(1, running=10)]) == 0


def test_each_api_server_of_vllm_sees_its_own_requests_times_their_number():
    router = VLLM032(4, 0)
    taken = Counter(router.route(arrival(request=n), views(0, 0, 0, 0)) for n in range(400))
    assert min(taken.values()) > 80, "no API server knows what the others sent, and all begin elsewhere"


# SGLang's and smg's power of two, and smg's cache_aware.


def test_sglang_compares_polled_tokens_and_adds_nothing_of_its_own():
    router = PowerOfTwoTokens(2, seed=1)
    light, heavy = View(0, kv_blocks_free=900), View(1, kv_blocks_free=100)
    before = Counter(router.route(arrival(request=n), [light, heavy]) for n in range(100))
    assert 30 < before[0] < 70, "before the first poll any will do"
    router.published(30.0)
    assert {router.route(arrival(request=n), [light, heavy]) for n in range(100, 150)} == {0}


def test_vllm_router_compares_requests_in_flight():
    router = PowerOfTwoTokens(2, seed=1, reports=False)
    taken = Counter(router.route(arrival(request=n), views(9, 0)) for n in range(100))
    assert taken[0] == taken[1] == 50


def test_smg_reckons_with_what_was_reported_and_sent_since_if_that_is_more_than_what_is_in_flight():
    router = smg.LeastLoad(2, seed=0)
    router.published(0.0)
    busy = [View(0, running=3), View(1)]
    assert [router.route(arrival(request=n), busy) for n in range(3)] == [1, 1, 1]
    for request in range(3):
        router.ended(request, 1.0)
    assert router.candidates(arrival(), busy) == [0, 1], "three are outstanding on either, by what is known"
    router.published(10.0)
    assert router.candidates(arrival(), busy) == [1]


def test_smg_avoids_a_full_kv_cache_among_equals():
    router = smg.LeastLoad(2, seed=0)
    router.published(0.0)
    assert router.candidates(arrival(), [View(0, kv_blocks_free=10), View(1)]) == [1]


def test_smg_takes_one_that_has_not_reported_for_the_best_of_the_others():
    router = smg.LeastLoad(2, seed=0)
    router.published(0.0)
    assert router.candidates(arrival(), [View(0, running=5), View(1, running=7)]) == [0]
    router.follow([0, 1, 2])
    three = [View(0, running=5), View(1, running=7), View(2)]
    assert router.candidates(arrival(), three) == [0, 2]
    router.send(arrival(request=1), 2)
    assert router.candidates(arrival(), three) == [0]


def test_smg_leaves_a_prefix_whose_home_is_overloaded():
    router = smg.CacheAware(4, 10, seed=0)
    prompt = arrival(40, prefix_ids=(1, 2, 3, 4))
    home = router.route(prompt, views(0, 0, 0, 0))
    for request in range(1, 6):
        assert router.route(prompt._replace(request=request), views(0, 0, 0, 0)) == home
    # 6 of 6 in flight: 1.5 times the mean of 1.5, and more than 4 above it.
    assert router.route(prompt._replace(request=6), views(0, 0, 0, 0)) != home
    assert len(router.tree.match((1, 2, 3, 4)).by) == 2, "which has it from now on"


# Dynamo.


def dynamo(instances: int = 2, budget: int = 1000) -> Dynamo:
    return Dynamo(instances, 10, budget, seed=0)


def test_dynamo_credits_what_kv_events_say_is_cached():
    router = dynamo()
    router.cache_changed(1, stored=(1, 2, 3), removed=())
    assert router.route(arrival(40, prefix_ids=(1, 2, 3)), views(0, 0)) == 1
    router.cache_changed(1, stored=(), removed=(1, 2, 3))
    assert router.route(arrival(40, request=1, prefix_ids=(1, 2, 3)), views(0, 0)) == 0, "40 tokens are in use on 1"


def test_dynamo_weighs_prompts_to_compute_against_blocks_in_use():
    router = dynamo()
    waiting = [View(0, pending_prompt_tokens=500), View(1)]
    assert router.route(arrival(300), waiting) == 1
    assert router.route(arrival(100, request=1), waiting) == 1, "300 in use there, 500 to compute here"
    assert router.route(arrival(100, request=2), [View(0, pending_prompt_tokens=399), View(1)]) == 0
    router.ended(0, 1.0)
    assert router.route(arrival(100, request=3), waiting) == 1


def test_dynamo_keeps_requests_back_while_every_instance_has_too_much_to_compute():
    router = dynamo(budget=10)
    swamped = [View(0, pending_prompt_tokens=161), View(1, pending_prompt_tokens=170)]
    assert router.route(arrival(), swamped) == HOLD
    assert router.route(arrival(), [swamped[0], View(1, pending_prompt_tokens=160)]) == 1


# llm-d.


def test_llm_d_adds_up_queue_kv_use_and_prefix():
    router = LLMD(10, 10_000, seed=0)
    instances = [View(0, waiting=4), View(1), View(2, waiting=2)]
    prompt = arrival(40, prefix_ids=(1, 2, 3, 4))
    assert router.route(prompt, instances) == 1
    router.published(0.05)
    # The prefix is worth 3, the emptiest queue 2.
    assert router.route(prompt, [View(0), View(1, waiting=9), View(2, waiting=2)]) == 1
    router.published(0.1)
    # And KV use up to 2.
    assert router.route(prompt, [View(0), View(1, waiting=9, kv_blocks_free=400), View(2, waiting=2)]) == 0


def test_llm_d_forgets_what_was_sent_longest_ago():
    router = LLMD(10, 40, seed=0)
    for n, ids in enumerate([(1, 2, 3, 4), (5, 6, 7, 8)]):
        router.route(arrival(40, request=n, prefix_ids=ids), [View(0)])
    assert router._sent.depths((1, 2, 3, 4)) == {}


@pytest.mark.parametrize(
    ("tokens", "ends", "score"),
    [
        (0, (0, 10_000), 0.3 + 0.7 * (0.7 * 0.5 + 0.3)),
        (10_000, (0, 10_000), 0.3 + 0.7 * 0.7 * 0.5),
        (5, (5, 5), 1.0),
        (1100, (0, 100), 0.15),
        (100, (1100, 2000), 0.15),
    ],
)
def test_a_range_that_is_narrow_and_has_room_suits_best(tokens, ends, score):
    assert range_score(tokens, *ends) == pytest.approx(score)


def test_llm_d_heeds_labels_where_they_are_given():
    router = LLMD(10, 10_000, seed=0, ranges={0: (0, 1000), 1: (1001, 100_000)})
    assert [router.route(arrival(tokens), views(0, 0)) for tokens in (500, 50_000)] == [0, 1]


# The others.


def test_the_production_stack_follows_the_longest_prefix_whatever_the_load():
    router = PrefixAware(3, 10, seed=0)
    first = router.route(arrival(40, prefix_ids=(1, 2, 3, 4)), views(0, 0, 0))
    loads = [0, 0, 0]
    loads[first] = 10_000
    assert {router.route(arrival(40, prefix_ids=(1, 2, 9, 8)), views(*loads)) for _ in range(20)} == {first}
    assert len({router.route(arrival(10), views(0, 0, 0)) for _ in range(50)}) == 3


def test_ray_serve_takes_who_was_sent_least_where_less_than_a_tenth_matches():
    router = RayServe(2, 10, seed=0)
    first = router.route(arrival(100, prefix_ids=(1,)), views(0, 0))
    assert router.route(arrival(101, request=1, prefix_ids=(1,)), views(0, 0)) == 1 - first, "10 of 101 tokens"
    assert router.route(arrival(95, request=2, prefix_ids=(1, 2)), views(0, 0)) in (0, 1)
    assert (
        router.route(arrival(50, request=3), views(0, 0)) == first if router._tree.sizes_tokens[first] < 101 else True
    )


def test_aibrix_passes_over_a_match_with_more_than_a_deviation_above_the_mean():
    router = AIBrix(4, seed=0)
    prompt = arrival(40, prefix_ids=(1, 2, 3, 4))
    home = router.route(prompt, views(0, 0, 0, 0))
    # One on one of four: mean 1/4, deviation 0.43: 1 is above 0.68.
    assert router.route(prompt._replace(request=1), views(0, 0, 0, 0)) != home
    router.ended(0, 1.0)
    assert router.route(prompt._replace(request=2), views(0, 0, 0, 0)) == home


def test_preble_follows_a_prefix_of_more_than_half_of_the_prompt_and_else_the_least_load():
    router = Preble(2, 10, prompt_token_s=0.001, answer_s=0.01)
    shared = (1, 2, 3, 4)
    assert router.route(arrival(40, prefix_ids=shared), views(0, 0)) == 0
    assert router.route(arrival(79, request=1, prefix_ids=shared), views(0, 0)) == 0, "40 of 79 tokens"
    assert router.route(arrival(80, request=2, prefix_ids=shared), views(0, 0)) == 1
    later = views(0, 0, as_of_s=181.0)
    for request in range(3):
        router.ended(request, 100.0)
    assert router.route(arrival(10, request=3), later) == 0, "what was sent 3 minutes ago counts no more"


def test_least_harm_reckons_with_what_of_a_prompt_is_not_cached():
    router = LeastHarmPrefix(10, 1000)
    prompt = arrival(40, prefix_ids=(1, 2, 3, 4))
    assert router.route(prompt, views(0, 0)) == 0
    # 2 x 1 to compute there against 1 x 40 elsewhere; then (50 + 1) x 1 against 40.
    assert router.route(prompt, views(1, 0)) == 0
    assert router.route(prompt, views(50, 0)) == 1
